"""Finds which elements of sizes that an ONNX graph computes follow the number of rows.

Exporters compute the shapes of reshapes from `Shape`. Of a shape [rows, time] the first element may
only become the size of a batch axis again; the second is a number like any other. Two runs can't
tell them apart by their values: the rows modulo 2, or divided by 8, may be the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from meshserve.runtimes import onnx_graph
from meshserve.runtimes import row_rules as rules

Mask: TypeAlias = np.ndarray
"""For each element of a tensor whether it follows the number of rows."""

Masks = Mapping[str, Mask]
Values = Mapping[str, np.ndarray]


def follow(node: onnx_graph.Node, masks: Masks, values: Values, output: str) -> Mask:
    """Return the mask of what the operator computes of sizes.

    `values` are the tensors of one run. Raises RowsMix for an operator that exporters do not use
    for sizes, because it may be constant up to some number of rows.
    """
    rule = _RULES.get(node.kind)
    if rule is None:
        raise rules.RowsMix("a value depends on the number of rows")
    shape = values[output].shape
    mask = rule(node, masks, values)
    # An operand of unknown form counts whole.
    return np.ones(shape, bool) if mask is None else np.broadcast_to(mask.reshape(shape), shape)


def check_places(mask: Mask, output: rules.Operand) -> None:
    """Check that sizes [dimensions] follow the rows at the batch axis alone. Raises RowsMix.

    The sizes are those of the last dimensions of `output`, as `Expand` has it.
    """
    offset = output.rank - mask.size
    if any(offset + place != output.axis for place in np.flatnonzero(mask)):
        raise rules.RowsMix("a size other than that of the batch depends on the number of rows")


def _mask(name: str, masks: Masks, values: Values) -> Mask | None:
    """Return the mask of an operand, None if its shape is not known."""
    if name in masks:
        return masks[name]
    return np.zeros(values[name].shape, bool) if name in values else None


def _same_elements(node: onnx_graph.Node, masks: Masks, values: Values) -> Mask | None:
    return _mask(node.inputs[0], masks, values)


def _elementwise(node: onnx_graph.Node, masks: Masks, values: Values) -> Mask | None:
    result = np.zeros((), bool)
    for name in node.inputs:
        mask = _mask(name, masks, values)
        if mask is None:
            return None
        result = result | mask
    return result


def _gather(node: onnx_graph.Node, masks: Masks, values: Values) -> Mask | None:
    source, index = node.inputs[:2]
    mask = _mask(source, masks, values)
    axis = node.attributes.get("axis", 0)
    if mask is None or index in masks or index not in values or not isinstance(axis, int):
        return None
    return np.take(mask, values[index], axis=axis)


def _concat(node: onnx_graph.Node, masks: Masks, values: Values) -> Mask | None:
    parts = [_mask(name, masks, values) for name in node.inputs]
    axis = node.attributes.get("axis", 0)
    if not isinstance(axis, int):
        return None
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=axis) if len(known) == len(parts) else None


def _slice(node: onnx_graph.Node, masks: Masks, values: Values) -> Mask | None:
    mask = _mask(node.inputs[0], masks, values)
    bounds = [name for name in node.inputs[1:] if name]
    if mask is None or mask.ndim != 1 or any(n in masks or n not in values for n in bounds):
        return None
    if not bounds:
        start, end = node.attributes.get("starts"), node.attributes.get("ends")
        if not (isinstance(start, list) and isinstance(end, list)):
            return None
        return mask[int(start[0]) : int(end[0])]
    step = int(values[node.inputs[4]].ravel()[0]) if len(node.inputs) > len(_BOUNDS) else 1
    start, end = (int(values[name].ravel()[0]) for name in node.inputs[1:3])
    # In ONNX an end before the first element is far below zero; in Python that is None.
    return mask[start : None if step < 0 and end < -mask.size else end : step]


_BOUNDS = ("data", "starts", "ends", "axes")

_RULES: dict[str, Callable[[onnx_graph.Node, Masks, Values], Mask | None]] = {
    "Add": _elementwise,
    "Cast": _same_elements,
    "Concat": _concat,
    "Div": _elementwise,
    "Equal": _elementwise,
    "Gather": _gather,
    "Identity": _same_elements,
    "Mul": _elementwise,
    "Neg": _elementwise,
    "ReduceProd": lambda *_: None,  # It is made of all elements, so it counts whole.
    "Reshape": _same_elements,
    "Slice": _slice,
    "Squeeze": _same_elements,
    "Sub": _elementwise,
    "Unsqueeze": _same_elements,
    "Where": _elementwise,
}
"""Operators with which exporters compute shapes."""
