"""ONNX files of a few operators for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Tensor = tuple[str, Any, Sequence[Any]]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    weights: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Save a model of these operators, of opset 17."""
    drawn = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(drawn, ir_version=8, opset_imports=opsets), path)
    return path


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def lstm(path: Path, *, is_time_first: bool, features: int = 4, hidden: int = 8) -> Path:
    """Save an LSTM, whose rows are time, or sequences of a batch."""
    recurrent = helper.make_node("LSTM", ["t", "W", "R"], ["Y"], hidden_size=hidden)
    if is_time_first:
        nodes = [
            helper.make_node("Identity", ["x"], ["t"]),
            recurrent,
            helper.make_node("Squeeze", ["Y", "one"], ["y"]),
        ]
        shapes = ["n", 1, features], ["n", 1, hidden]
    else:
        nodes = [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            recurrent,
            helper.make_node("Squeeze", ["Y", "one"], ["s"]),
            helper.make_node("Transpose", ["s"], ["y"], perm=[1, 0, 2]),
        ]
        shapes = ["n", 6, features], ["n", 6, hidden]
    weights = {
        "W": weight(1, 4 * hidden, features),
        "R": weight(1, 4 * hidden, hidden, seed=1),
        "one": np.array([1]),
    }
    return graph(path, nodes, [("x", FLOAT, shapes[0])], [("y", FLOAT, shapes[1])], weights)
