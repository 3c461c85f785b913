"""Make the models, and start a mesh of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from bench import meshes
from compat import onnx_models, tabular_models, triton_folders, world

ROOT = Path(__file__).parent.parent
READY_S = 120.0
LLM, LLM_ALIAS = "steady", "org/steady"
ENGINE = "words"
"""The runtime of the LLM: `compat.words_engine`, which the mesh finds by an entry point."""

TF_OFFSETS = {1: 2.0, 2: 3.0}
"""What half_plus_two adds, by version."""


def write_models(folder: Path) -> dict[str, Any]:
    """Write every model below `folder` and return what the libraries answer in process."""
    triton_folders.write(folder / "triton")
    facts = tabular_models.write(folder)
    _half_plus_two(folder / "tf_serving")
    for name in ("wide", "onnx-mnist"):
        onnx_models.scaled(folder / "modelmesh" / name / "model.onnx", 2)
    return facts


def _half_plus_two(folder: Path) -> None:
    """Write TensorFlow Serving's model in its layout: a folder for each version."""
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["m"]),
        helper.make_node("Add", ["m", "two"], ["y"]),
    ]
    for version, offset in TF_OFFSETS.items():
        weights = {"half": np.array([0.5], np.float32), "two": np.array([offset], np.float32)}
        path = folder / "half_plus_two" / str(version) / "model.onnx"
        onnx_models.save(path, nodes, [("x", "FP32", ["n"])], [("y", "FP32", ["n"])], weights)


def sections(folder: Path) -> dict[str, Any]:
    """Return the sections of the mesh's configuration."""
    trusted = [
        {"name": name, "uri": str(folder / "kserve" / name), "trust": True}
        for name in ("sklearn-iris", "xgboost-iris", "lightgbm-iris", "lightgbm-frame", "mixed")
    ]
    forests = [
        {"name": name, "uri": str(folder / "fil" / name)}
        for name in ("xgboost-fil", "lightgbm-fil")
    ]
    weights = folder / "weights"
    weights.mkdir()
    return {
        "models": [*trusted, *forests],
        "repositories": [
            {"path": str(folder / "triton"), "trust": True},
            {"path": str(folder / "mlserver"), "trust": True},
            {"path": str(folder / "tf_serving")},
        ],
        "llms": [
            {
                "name": LLM,
                "aliases": [LLM_ALIAS],
                "uri": str(weights),
                "runtime": ENGINE,
                "start_timeout_s": 60,
            }
        ],
    }


def _engine_variables(folder: Path) -> dict[str, str]:
    """Return the variables by which a mesh finds the engine, as if a package had brought it."""
    about = folder / "site" / f"{ENGINE}-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {ENGINE}\nVersion: 1\n")
    entry = f"{ENGINE} = compat.words_engine:WordsEngine"
    (about / "entry_points.txt").write_text(f"[meshserve.engines]\n{entry}\n")
    path = os.pathsep.join([str(about.parent), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[world.World]:
    """Write the models and run a mesh of them while the context lasts."""
    facts = write_models(folder)
    configured, variables = sections(folder), _engine_variables(folder)
    with meshes.up(folder, meshes.pool(1, "1GiB"), variables, **configured) as mesh:
        asked = world.World(mesh.endpoint, folder, facts)
        # An LLM that still starts is no hindrance: its requests wait.
        mesh.system.wait_until(lambda: meshes.is_ready(mesh.endpoint), READY_S)
        try:
            yield asked
        finally:
            asked.close()
