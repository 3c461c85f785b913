"""V1's rows and columns for a model that does not declare its inputs.

Neither V1 nor the model says datatypes, so the values do, as if the model's own library made an
array of the lists. What earlier requests had is no rule, or equal requests would get other answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import json_tensors, tensors

TORCH = "pytorch_libtorch"


def from_columns(columns: Any, signature: model.Signature) -> dict[str, tensors.WireTensor]:
    """Return the inputs by name, or the only input that is known. Raises InvalidRequest."""
    named = columns if isinstance(columns, dict) else {_only(signature): columns}
    # A list of fractions becomes float32 in torch, float64 in numpy.
    floats = "FP32" if signature.platform == TORCH else "FP64"
    return {
        name: tensors.WireTensor(datatype, json_tensors.to_array(values, datatype, name))
        for name, values in named.items()
        for datatype in [json_tensors.natural_datatype(values, name, floats)]
    }


def from_rows(rows: Sequence[Any], signature: model.Signature) -> dict[str, tensors.WireTensor]:
    """Return the inputs in rows, which are values or objects by name. Raises InvalidRequest."""
    if not rows or not all(map(_is_named, rows)):
        return from_columns(list(rows), signature)
    names = list(rows[0])
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise errors.InvalidRequest(
                f"instance {number} has the inputs {sorted(row)}, the first one has {sorted(names)}"
            )
    return from_columns({name: [row[name] for row in rows] for name in names}, signature)


def _is_named(row: object) -> bool:
    return isinstance(row, Mapping) and json_tensors.BASE64_KEY not in row


def _only(signature: model.Signature) -> str:
    needed = [spec.name for spec in signature.inputs if spec.name not in signature.optional]
    if len(needed) != 1:
        raise errors.InvalidRequest(
            "the model does not declare one input: give each by name, in objects like "
            '{"NAME": values}'
        )
    return needed[0]
