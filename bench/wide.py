"""An ONNX model with much to carry and little to do, and the same sum in numpy.

It maps rows of 1 KB (256 numbers) to 4 numbers each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS, OUTPUTS = 256, 4
ROW_BYTES = INPUTS * 4


def weights() -> np.ndarray:
    """Return the one matrix, FP32 of shape (256, 4)."""
    return np.random.default_rng(0).standard_normal((INPUTS, OUTPUTS)).astype(np.float32) / 16


def write(path: Path) -> None:
    """Write the model as a file: FP32 `x` [-1, 256] to FP32 `y` [-1, 4]."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", OUTPUTS])],
        [numpy_helper.from_array(weights(), "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )


def rows(size_bytes: int) -> np.ndarray:
    """Return an FP32 input of that many bytes, of shape (rows, 256)."""
    return (
        np.random.default_rng(1)
        .standard_normal((size_bytes // ROW_BYTES, INPUTS))
        .astype(np.float32)
    )


def answer(x: np.ndarray) -> np.ndarray:
    """Return the right answer of shape (rows, 4), up to rounding."""
    return x @ weights()
