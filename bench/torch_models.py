"""PyTorch models of a wanted size: a few wide layers, or a deep transformer.

They are exported, or traced as TorchScript.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

LAYERS, WORDS, LENGTH, SHAPE_SEED = 6, 1000, 16, 5
FLOAT_BYTES = 4


class Wide(torch.nn.Module):
    """Linear layers of one width: [n, width] → [n, width]."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self.width = self.width_of(size_bytes)
        parts = ((torch.nn.Linear(self.width, self.width), torch.nn.ReLU()) for _ in range(LAYERS))
        self.layers = torch.nn.Sequential(*(part for pair in parts for part in pair))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply all layers in turn; `x` has shape (n, width)."""
        return self.layers(x)

    def rows(self) -> np.ndarray:
        """Return two rows for the model."""
        return self.rows_of(self.width)

    @staticmethod
    def width_of(size_bytes: int) -> int:
        """Return the width that makes a model of about that many bytes."""
        return math.isqrt(size_bytes // FLOAT_BYTES // LAYERS)

    @staticmethod
    def rows_of(width: int) -> np.ndarray:
        """Return two rows of that many numbers."""
        return np.random.default_rng(SHAPE_SEED).standard_normal((2, width), np.float32)


class Deep(torch.nn.Module):
    """A transformer's encoder of BERT's width: [n, 16] words → [n, 768]."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        width, heads = 768, 12
        block_bytes = FLOAT_BYTES * 12 * width * width
        self.words = torch.nn.Embedding(WORDS, width)
        blocks = max(1, round((size_bytes - FLOAT_BYTES * WORDS * width) / block_bytes))
        layers = (
            torch.nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
            for _ in range(blocks)
        )
        self.blocks = torch.nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean over the words; `x` has shape (n, 16)."""
        h = self.words(x)
        for block in self.blocks:
            h = block(h)
        return h.mean(1)

    def rows(self) -> np.ndarray:
        """Return two rows for the model."""
        return np.random.default_rng(SHAPE_SEED).integers(WORDS, size=(2, LENGTH))


@dataclass(frozen=True)
class Kind:
    """A module and the format that it is saved in."""

    name: str
    module: type[Wide | Deep]
    ending: str


WIDE = Kind("6 wide layers, torch.export", Wide, ".pt2")
DEEP = Kind("transformer, torch.export", Deep, ".pt2")
SCRIPTED = Kind("6 wide layers, TorchScript", Wide, ".pt")


def write(path: Path, kind: Kind, size_bytes: int) -> np.ndarray:
    """Save a model of about that many bytes; return rows for it."""
    torch.manual_seed(SHAPE_SEED)
    module = kind.module(size_bytes).eval().requires_grad_(requires_grad=False)
    rows = module.rows()
    example = torch.from_numpy(rows)
    if kind.ending == ".pt2":
        exported = torch.export.export(
            module, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
        torch.export.save(exported, path)
        return rows
    datatype = "FP32" if rows.dtype == np.float32 else "INT64"
    signature = {"inputs": [{"name": "x", "datatype": datatype, "shape": [-1, rows.shape[1]]}]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(
            torch.jit.trace(module, (example,)),
            path,
            _extra_files={"signature.json": json.dumps(signature)},
        )
    return rows


def load(path: Path) -> torch.nn.Module:
    """Load the file as torch itself does."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(path)


def answer(module: torch.nn.Module, rows: np.ndarray) -> np.ndarray:
    """Return torch's own answer; rows first, of any dtype."""
    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(rows)).numpy())


def first_weights(path: Path) -> bytes:
    """Return some of the model's weights, as they are in its file."""
    module = load(path)
    return next(iter(module.parameters())).detach().numpy().ravel()[:64].tobytes()
