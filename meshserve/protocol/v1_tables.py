"""V1's rows and columns of a tabular model, whose columns may come by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import json_tensors, table_inputs, tensors

Inputs = dict[str, tensors.WireTensor]


def from_rows(rows: Sequence[Any], signature: model.Signature, table: model.Table) -> Inputs:
    """Return the inputs in rows: lists, single values, or objects with the columns by name.

    A column of an object may hold several rows, as a list or as `{"0": …, "1": …}`, the form that
    pandas gives a frame. Raises InvalidRequest.
    """
    name = signature.inputs[0].name
    if rows and all(_is_object(row) for row in rows):
        has_matrix = not table.is_by_column and name not in table.columns
        if has_matrix and all(row.keys() == {name} for row in rows):
            return _matrix([row[name] for row in rows], signature)
        return _from_objects(rows, table)
    if not table.is_by_column:
        return _matrix(rows, signature)
    width = len(table.columns)
    if width == 1:
        # With one column a row is often given as its only value.
        rows = [row if isinstance(row, list) else [row] for row in rows]
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise errors.InvalidRequest(
                f"instance {number} must have {width} values, one for each column, "
                "or be an object with the columns by name"
            )
    return {
        column: _column(column, [row[place] for row in rows])
        for place, column in enumerate(table.columns)
    }


def from_columns(columns: Any, signature: model.Signature, table: model.Table) -> Inputs:
    """Return the inputs in columns by name, or in one matrix, by any name or none.

    Raises InvalidRequest.
    """
    if not isinstance(columns, dict):
        return from_rows(columns if isinstance(columns, list) else [columns], signature, table)
    if len(columns) == 1:
        ((name, values),) = columns.items()
        # A matrix may have any name: clients of such models rarely know the model's own.
        if name not in table.columns and isinstance(values, list):
            return from_rows(values, signature, table)
    if not table.columns:
        names = ", ".join(repr(name) for name in columns) or "none"
        raise errors.InvalidRequest(
            f"the model takes one matrix, {signature.inputs[0].name!r}; {names} came"
        )
    table_inputs.check_names(columns, table.columns)
    return {name: _column(name, _cells(columns[name])) for name in table.columns}


def _is_object(row: object) -> bool:
    return isinstance(row, dict) and json_tensors.BASE64_KEY not in row


def _matrix(rows: Sequence[Any], signature: model.Signature) -> Inputs:
    spec = signature.inputs[0]
    values: list[Any] = list(rows)
    datatype = spec.datatype
    if datatype not in ("BOOL", "BYTES"):
        values = [_booleans_as_numbers(row) for row in values]
    if datatype == "FP64":
        # As numpy reads lists: a double would round whole numbers beyond 2^53.
        datatype = json_tensors.whole_datatype(values) or datatype
    array = json_tensors.to_array(values, datatype, spec.name)
    return {spec.name: tensors.WireTensor(datatype, array)}


def _booleans_as_numbers(row: Any) -> Any:
    """Return a row with 1 and 0 for true and false, as numpy has them among numbers."""
    # A quick look in C, which 1 and 0 pass too, being equal to them; the types below decide.
    if isinstance(row, list) and (True in row or False in row):
        return [int(cell) if isinstance(cell, bool) else cell for cell in row]
    return row


def _from_objects(rows: Sequence[Mapping[str, Any]], table: model.Table) -> Inputs:
    if not table.columns:
        raise errors.InvalidRequest(
            "the model has no names of columns: give each instance as a list of values"
        )
    cells: dict[str, list[Any]] = {name: [] for name in table.columns}
    for number, row in enumerate(rows):
        table_inputs.check_names(row, table.columns, f"instance {number}: ")
        parts = {name: _cells(row[name]) for name in table.columns}
        if len({len(part) for part in parts.values()}) > 1:
            raise errors.InvalidRequest(f"instance {number} has columns of different lengths")
        for name, part in parts.items():
            cells[name].extend(part)
    return {name: _column(name, values) for name, values in cells.items()}


def _cells(value: Any) -> list[Any]:
    """Return the values of one column in one object."""
    if _is_object(value):
        return list(value.values())
    if not isinstance(value, list):
        return [value]
    # Columns of shape [rows, 1] are columns too.
    return [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in value]


def _column(name: str, values: list[Any]) -> tensors.WireTensor:
    """Return the values of one column with the narrowest datatype that holds them all."""
    kinds = {type(value) for value in values} - {type(None)}
    has_gaps = None in values
    if kinds <= {str, dict} and kinds:
        return tensors.WireTensor("BYTES", _texts(name, values))
    if kinds == {bool} and not has_gaps:
        return tensors.WireTensor("BOOL", np.array(values))
    if kinds == {int} and not has_gaps:
        return tensors.WireTensor("INT64", json_tensors.to_array(values, "INT64", name))
    if kinds <= {int, float, bool}:
        # Among numbers and gaps true and false are 1.0 and 0.0, as in numpy.
        numbers = [float(value) if isinstance(value, bool) else value for value in values]
        return tensors.WireTensor("FP64", json_tensors.to_array(numbers, "FP64", name))
    raise errors.InvalidRequest(f"column {name!r} must hold numbers or texts, not both or others")


def _texts(name: str, values: list[Any]) -> np.ndarray:
    """Return texts as BYTES; a gap stays None, as in a frame."""
    array = np.empty(len(values), object)
    present = [place for place, value in enumerate(values) if value is not None]
    array[present] = json_tensors.to_array([values[place] for place in present], "BYTES", name)
    return array
