"""A random ONNX graph under construction: its operators, weights, and values for some inputs."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

ROWS = 3
"""Rows of the inputs with which operators are tried while a graph is drawn."""

OPSETS = [helper.make_opsetid("", 17)]

Shape = tuple[int, ...]
FORMS: list[dict[str, tuple[str, Shape]]] = [
    {"x": ("f", (4,))},
    {"x": ("f", (4,)), "z": ("f", (4,))},
    {"x": ("f", (5, 4))},
    {"x": ("f", (5, 4)), "mask": ("i", (5,))},
    {"x": ("f", (1, 4))},
    {"x": ("f", (2, 6, 6))},
    {"i": ("i", (3,))},
    {"i": ("i", ()), "x": ("f", (4,))},
    {"x": ("f", ())},
]
"""Inputs by name: kind of numbers (float or integer), and the sizes after the rows."""


class Unfit(Exception):
    """The operator does not take what was drawn for it."""


class Drawing:
    """A graph under construction, and the values of its tensors for made-up inputs."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.inputs = self.chance.choice(FORMS)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.values = make_inputs(self.inputs, ROWS, self.numbers)

    def weight(self, array: np.ndarray) -> str:
        """Add a weight, and return its name."""
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def floats(self, *shape: int) -> str:
        return self.weight(self.numbers.standard_normal(shape).astype(np.float32))

    def whole(self, *numbers: int) -> str:
        return self.weight(np.array(numbers, np.int64))

    def add(self, kind: str, *names: str, count: int = 1, **attributes: Any) -> str:
        """Add an operator, and return the name of its first output. Raises Unfit."""
        outputs = [f"t{len(self.nodes)}_{place}" for place in range(count)]
        node = helper.make_node(kind, list(names), outputs, **attributes)
        values = {**self.values, **self.weights}
        feeds = {name: values[name] for name in names if name}
        for name, array in zip(outputs, run_node(node, feeds), strict=True):
            self.values[name] = array
        self.nodes.append(node)
        return outputs[0]

    def pick(self, kind: str = "f", least_rank: int = 1) -> str:
        """Return a tensor of the kind, rather a late one. Raises Unfit if none is there."""
        fitting = [
            name
            for name, array in self.values.items()
            if array.dtype.kind == kind and array.ndim >= least_rank
        ]
        if not fitting:
            raise Unfit
        return self.chance.choice(fitting[-3:])

    def shape(self, name: str) -> Shape:
        return tuple(self.values[name].shape)

    def axis(self, name: str) -> int:
        """Return any axis of the tensor, rather one of the last."""
        rank = len(self.shape(name))
        if not rank:
            raise Unfit
        return max(self.chance.randrange(rank), self.chance.randrange(rank))


def run_node(node: onnx.NodeProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of one operator. Raises Unfit if it refuses its inputs."""
    drawn = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )
    content = helper.make_model(drawn, ir_version=8, opset_imports=OPSETS).SerializeToString()
    try:
        answers = onnxruntime.InferenceSession(content, quiet()).run(None, feeds)
    except Exception as error:
        raise Unfit from error
    if any(not isinstance(array, np.ndarray) or not array.size for array in answers):
        raise Unfit
    return list(answers)


def quiet() -> Any:
    """Return options of a session with one thread that logs nothing."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def make_inputs(
    inputs: dict[str, tuple[str, Shape]],
    rows: int,
    numbers: np.random.Generator,
    scale: float = 1.0,
) -> dict[str, np.ndarray]:
    """Return random inputs; integers are below 3, which every operator takes as indices."""
    return {
        name: (numbers.standard_normal((rows, *sizes)) * scale).astype(np.float32)
        if kind == "f"
        else numbers.integers(0, 3, (rows, *sizes))
        for name, (kind, sizes) in inputs.items()
    }
