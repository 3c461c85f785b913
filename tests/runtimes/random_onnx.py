"""Random small ONNX graphs, composed of operators of many kinds by a seeded generator."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.runtimes import onnx_drawing, random_onnx_operators
from tests.runtimes.onnx_drawing import ROWS, Drawing, Unfit

TRIES_MAX = 60


def draw(seed: int, length: int = 4) -> Drawing:
    """Return a graph of about `length` operators."""
    drawing = Drawing(seed)
    for _ in range(TRIES_MAX):
        operator = drawing.chance.choice(random_onnx_operators.OPERATORS)
        nodes, weights, values = len(drawing.nodes), dict(drawing.weights), dict(drawing.values)
        try:
            operator(drawing)
        except (Unfit, IndexError, ValueError, KeyError):
            del drawing.nodes[nodes:]
            drawing.weights, drawing.values = weights, values
            continue
        length -= 1
        if not length:
            break
    return drawing


def save(drawing: Drawing, path: Path) -> None:
    """Save the graph with its latest float tensor as output, rather one with a row for each row."""
    last = [name for name, array in drawing.values.items() if name not in drawing.inputs]
    last = [name for name in last if drawing.values[name].dtype.kind in "fi"]
    batched = [name for name in last if drawing.values[name].shape[:1] == (ROWS,)]
    output = (batched or last)[-1]
    shape = ["n" if place == 0 else None for place in range(drawing.values[output].ndim)]
    is_float = drawing.values[output].dtype.kind == "f"
    kinds = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
    drawn = helper.make_graph(
        drawing.nodes,
        "g",
        [
            helper.make_tensor_value_info(name, kinds[kind], ["n", *sizes])
            for name, (kind, sizes) in drawing.inputs.items()
        ],
        [
            helper.make_tensor_value_info(
                output,
                TensorProto.FLOAT
                if is_float
                else helper.np_dtype_to_tensor_dtype(drawing.values[output].dtype),
                shape,
            )
        ],
        [numpy_helper.from_array(array, name) for name, array in drawing.weights.items()],
    )
    onnx.save(helper.make_model(drawn, ir_version=8, opset_imports=onnx_drawing.OPSETS), path)
