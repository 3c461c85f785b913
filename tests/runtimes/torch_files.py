"""Files of PyTorch programs for tests."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from meshserve.core.values import model

IMAGES = model.TensorSpec("images", "FP32", (-1, 1, 8, 8))
DECLARED = {"inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]}


class Cnn(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layers(images)
        return answer


def scripted(path: Path, module: Any, **extra: Any) -> Any:
    """Save a scripted module, as a user does it whose tests don't turn warnings into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(
            torch.jit.script(module.eval()),
            path,
            _extra_files={name: json.dumps(content) for name, content in extra.items()},
        )
    return path


def exported(
    path: Path, module: Any, *arguments: Any, dynamic: Any = "auto", **keywords: Any
) -> Any:
    batch = {0: torch.export.Dim.DYNAMIC} if dynamic == "auto" else dynamic
    shapes = tuple(batch for _ in arguments) if arguments else None
    torch.export.save(
        torch.export.export(module.eval(), arguments, keywords, dynamic_shapes=shapes), path
    )
    return path


def rewritten(path: Path, change: Any) -> Any:
    """Change the content of each member of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
    return path
