"""Walks over the operators of small ONNX graphs for tests, from `x` to `y`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import helper

from meshserve.runtimes import onnx_operators, onnx_rows
from tests.runtimes import onnx_files
from tests.runtimes.onnx_files import FLOAT

X = [("x", FLOAT, ["n", 4])]
Y = [("y", FLOAT, ["n", 4])]
PROBE = {"x": np.ones((1, 4), np.float32)}


def node(kind: str, *inputs: str, **attributes: Any) -> Any:
    """Return an operator that gives `y`."""
    return helper.make_node(kind, list(inputs), ["y"], **attributes)


def mixing(path: Path, probe: onnx_operators.Arrays = PROBE) -> str | None:
    """Return what a walk says of the model in the file."""
    return onnx_rows.find_row_mixing(onnxruntime, path, probe)


WEIGHTS = {
    "w": onnx_files.weight(4, 4),
    "b": onnx_files.weight(4),
    "zero": np.array([0]),
    "one": np.array(1),
    "minus": np.array([-1]),
    "order": np.array([3, 2, 1, 0]),
    "eight": np.array([-1, 8]),
    "four": np.array([-1, 4]),
    "limit": np.array(1, np.float32),
}
