"""A tiny ONNX model (16 → 64 → 4, 5.6 KB), and the same sum in numpy.

A wider middle makes a bigger file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS, HIDDEN, OUTPUTS = 16, 64, 4


def hidden_for(size_bytes: int) -> int:
    """Return the width of the middle that makes a file of about that many bytes."""
    return max(HIDDEN, size_bytes // (4 * (INPUTS + OUTPUTS + 1)))


def weights(seed: int, hidden: int = HIDDEN) -> dict[str, np.ndarray]:
    """Return the FP32 weights of model number `seed`; shapes (16, hidden) and (hidden, 4)."""
    chance = np.random.default_rng(seed)
    shapes = {"w1": (INPUTS, hidden), "b1": (hidden,), "w2": (hidden, OUTPUTS), "b2": (OUTPUTS,)}
    return {name: chance.standard_normal(shape, np.float32) / 4 for name, shape in shapes.items()}


def write(path: Path, seed: int, hidden: int = HIDDEN) -> None:
    """Write the model as a file: FP32 `x` [-1, 16] to FP32 `y` [-1, 4]."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", OUTPUTS])],
        [numpy_helper.from_array(values, name) for name, values in weights(seed, hidden).items()],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(built, path)


def answer(seed: int, x: np.ndarray, hidden: int = HIDDEN) -> np.ndarray:
    """Return the right answer to `x` of shape (n, 16), up to rounding."""
    w = weights(seed, hidden)
    return np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
