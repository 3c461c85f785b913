"""ONNX models of a few operators, like those that Triton's suites generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8

TYPES = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "STRING": TensorProto.STRING,
}
"""ONNX's types by the words of Triton's configurations behind `TYPE_`."""

Spec = tuple[str, str, Sequence[Any]]
"""A tensor: its name, its type's word, its shape, in which a text is a size that is free."""


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Spec],
    outputs: Sequence[Spec],
    weights: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Save a model of these operators; `weights` are constants of any shape and dtype."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [_value(spec) for spec in inputs],
        [_value(spec) for spec in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets), path)


def _value(spec: Spec) -> onnx.ValueInfoProto:
    name, word, shape = spec
    return helper.make_tensor_value_info(name, TYPES[word], shape)


def add_sub(path: Path, types: tuple[str, str, str], shape: Sequence[Any]) -> None:
    """Save OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1, of these types.

    Texts are numbers in decimal digits.
    """
    given, first, second = types
    counted = "INT32" if given == "STRING" else given
    nodes = [
        helper.make_node("Cast", ["INPUT0"], ["a"], to=TYPES[counted]),
        helper.make_node("Cast", ["INPUT1"], ["b"], to=TYPES[counted]),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
        helper.make_node("Cast", ["sum"], ["OUTPUT0"], to=TYPES[first]),
        helper.make_node("Cast", ["difference"], ["OUTPUT1"], to=TYPES[second]),
    ]
    inputs = [("INPUT0", given, shape), ("INPUT1", given, shape)]
    save(path, nodes, inputs, [("OUTPUT0", first, shape), ("OUTPUT1", second, shape)])


def identity(path: Path, word: str, *shapes: Sequence[Any]) -> None:
    """Save OUTPUT<i> = INPUT<i> for each shape; equal words in shapes are equal sizes."""
    numbers = range(len(shapes))
    nodes = [helper.make_node("Identity", [f"INPUT{i}"], [f"OUTPUT{i}"]) for i in numbers]
    inputs = [(f"INPUT{i}", word, shapes[i]) for i in numbers]
    outputs = [(f"OUTPUT{i}", word, shapes[i]) for i in numbers]
    save(path, nodes, inputs, outputs)


def reshaped(path: Path, given: Sequence[Any], answered: Sequence[Any]) -> None:
    """Save OUTPUT0 = INPUT0 of FP32 in another shape.

    Free sizes are a batch, "n", which is kept, and one other.
    """
    # ONNX copies a size where 0 stands, and computes the one where -1 stands.
    free = {"n": 0}
    sizes = [free.get(size, -1) if isinstance(size, str) else size for size in answered]
    nodes = [helper.make_node("Reshape", ["INPUT0", "sizes"], ["OUTPUT0"])]
    inputs, outputs = [("INPUT0", "FP32", given)], [("OUTPUT0", "FP32", answered)]
    save(path, nodes, inputs, outputs, {"sizes": np.array(sizes, np.int64)})


def images(path: Path, channels_last: bool, batch: Any, tail: Sequence[int] = ()) -> None:
    """Save a network that gives photos of 3 channels and 8×8 pixels FP32 scores for 4 classes.

    `batch` is the first dimension of `data` and `scores`; `tail` ends the shape of `scores`.
    """
    weights = np.random.default_rng(5).standard_normal((3, 4)).astype(np.float32) / 100
    axes = [1, 2] if channels_last else [2, 3]
    sizes = np.array([-1 if isinstance(batch, str) else batch, 4, *tail], np.int64)
    nodes = [
        helper.make_node("ReduceMean", ["data"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["flat"]),
        helper.make_node("Reshape", ["flat", "sizes"], ["scores"]),
    ]
    shape = [batch, 8, 8, 3] if channels_last else [batch, 3, 8, 8]
    inputs, outputs = [("data", "FP32", shape)], [("scores", "FP32", [batch, 4, *tail])]
    save(path, nodes, inputs, outputs, {"weights": weights, "sizes": sizes})


def scaled(path: Path, factor: float, width: int = 4) -> None:
    """Save y = factor · x of FP32 [n, width]."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    shape = ["n", width]
    factors = {"factor": np.array([factor], np.float32)}
    save(path, nodes, [("x", "FP32", shape)], [("y", "FP32", shape)], factors)


def logarithm(path: Path) -> None:
    """Save OUTPUT0 = log(INPUT0) of FP32 [n]: it makes NaN and infinities."""
    nodes = [helper.make_node("Log", ["INPUT0"], ["OUTPUT0"])]
    save(path, nodes, [("INPUT0", "FP32", ["n"])], [("OUTPUT0", "FP32", ["n"])])


def scalar(path: Path) -> None:
    """Save OUTPUT0 = 2 · INPUT0 of FP32 scalars, whose shape is []."""
    nodes = [helper.make_node("Add", ["INPUT0", "INPUT0"], ["OUTPUT0"])]
    save(path, nodes, [("INPUT0", "FP32", [])], [("OUTPUT0", "FP32", [])])
