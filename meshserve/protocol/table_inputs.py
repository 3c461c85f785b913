"""The inputs of a tabular model from whatever form they came in.

Clients of such models rarely know a name or a datatype: the documented requests of KServe and
MLServer call the same matrix `input-0` or `predict`, and send FP32 whatever it was fitted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import tensors

Tensors = Mapping[str, tensors.WireTensor]

NAMES_SHOWN_MAX = 8
"""Names of columns that an error lists."""

LONG_BYTES = 8
"""Size of the whole numbers that a double, which is as long, may round."""

MATRIX_RANK = 2


def to_inputs(
    given: Tensors, signature: model.Signature, table: model.Table
) -> dict[str, np.ndarray]:
    """Return the arrays that the model takes: its one matrix, or one array [rows] for each column.

    A matrix may have any name, and any numeric datatype that the model's own can hold, or that its
    library judges itself. Columns come by their names, in any order, of shape [rows] or [rows, 1].
    Raises InvalidRequest.
    """
    first = signature.inputs[0]
    for name, tensor in given.items():
        has_allowed_gaps = tensor.datatype == tensors.GAPS and table.is_by_column
        if tensor.datatype.startswith(tensors.MISFIT) and not has_allowed_gaps:
            raise tensors.refusal(name, first.datatype, tensor)
    if len(given) == 1:
        ((name, tensor),) = given.items()
        if not _is_column(name, tensor, table):
            if table.is_by_column:
                return _split_matrix(name, tensor, table.columns)
            return {first.name: _matrix(name, tensor, first, table)}
    if not table.columns:
        raise errors.InvalidRequest(
            f"the model takes one matrix, {first.name!r} ({first.datatype} {list(first.shape)}); "
            f"{_listed(given) or 'no input'} came"
        )
    columns = _columns(given, table.columns)
    if table.is_by_column:
        return {name: as_it_came(tensor) for name, tensor in columns.items()}
    return {first.name: _stacked(columns, first.datatype, table)}


def _stacked(columns: Tensors, datatype: str, table: model.Table) -> np.ndarray:
    """Return columns [rows] as one matrix."""
    if table.keeps_datatypes and all(_is_numeric(tensor) for tensor in columns.values()):
        datatype = _common_datatype(columns.values())
    # Each column by itself, so that an error names the column whose values do not fit.
    arrays = [_converted(name, tensor, datatype) for name, tensor in columns.items()]
    return np.stack(arrays, axis=1).astype(tensors.dtype(datatype), copy=False)


def check_names(given: Iterable[str], columns: Sequence[str], owner: str = "") -> None:
    """Raise InvalidRequest that names the columns that are missing, or that the model lacks.

    `owner` says whose names they are, for messages.
    """
    came = dict.fromkeys(given)
    known = set(columns)
    missing = [name for name in columns if name not in came]
    unknown = [name for name in came if name not in known]
    if not missing and not unknown:
        return
    faults = []
    if missing:
        faults.append(f"the columns {_listed(missing)} are missing")
    if unknown:
        near = get_close_matches(unknown[0], missing or columns, 1)
        hint = f" (is {near[0]!r} meant?)" if near else ""
        faults.append(f"the model has no column {_listed(unknown)}{hint}")
    raise errors.InvalidRequest(
        f"{owner}{'; '.join(faults)}; it takes the columns {_listed(columns)}"
    )


def _listed(names: Iterable[str]) -> str:
    all_names = [repr(name) for name in names]
    more = len(all_names) - NAMES_SHOWN_MAX
    shown = ", ".join(all_names[:NAMES_SHOWN_MAX])
    return f"{shown} and {more} more" if more > 0 else shown


def _is_column(name: str, tensor: tensors.WireTensor, table: model.Table) -> bool:
    """Return whether the only input is a column and not a whole matrix."""
    if name not in table.columns:
        return False
    # A model of one column may get its whole matrix by that column's name.
    return len(table.columns) > 1 or tensor.array.ndim == 1


def _has_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wide in (-1, size) for wide, size in zip(expected, shape, strict=True)
    )


def _common_datatype(columns: Iterable[tensors.WireTensor]) -> str:
    """Return the datatype that holds the numbers of all columns, as numpy and pandas choose it."""
    common = np.result_type(*(as_it_came(tensor).dtype for tensor in columns))
    names = (name for name, dtype in tensors.DTYPES.items() if dtype == common and name != "BF16")
    return next(names)


def _is_numeric(tensor: tensors.WireTensor) -> bool:
    return not tensor.array.dtype.hasobject


def _matrix(
    name: str, tensor: tensors.WireTensor, spec: model.TensorSpec, table: model.Table
) -> np.ndarray:
    """Return the matrix in the model's datatype; texts and one feature may lack a dimension."""
    if table.keeps_datatypes and _is_numeric(tensor):
        array = as_it_came(tensor)
    else:
        array = _converted(name, tensor, spec.datatype)
    if array.ndim == 1 and len(spec.shape) == MATRIX_RANK and spec.shape[1] in (1, -1):
        array = array.reshape(-1, 1)
    elif array.ndim == MATRIX_RANK and len(spec.shape) == 1 and array.shape[1] == 1:
        array = array.reshape(-1)
    if not _has_shape(array.shape, spec.shape):
        raise errors.InvalidRequest(
            f"input {name!r} must have {len(spec.shape)} dimensions, {list(spec.shape)} "
            f"(-1 is any size); {list(tensor.array.shape)} came"
        )
    return array


def _split_matrix(
    name: str, tensor: tensors.WireTensor, columns: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the columns of a matrix by position."""
    array = as_it_came(tensor)
    if array.ndim == 1 and len(columns) == 1:
        array = array.reshape(-1, 1)
    if array.shape[1:] != (len(columns),):
        raise errors.InvalidRequest(
            f"input {name!r} of shape {list(array.shape)} is neither a column of the model nor "
            f"rows of all its columns, which are {_listed(columns)}"
        )
    # Models are promised contiguous arrays (`LoadedModel.predict`), and a matrix lies row by row.
    return {column: np.ascontiguousarray(array[:, i]) for i, column in enumerate(columns)}


def _columns(given: Tensors, columns: Sequence[str]) -> dict[str, tensors.WireTensor]:
    """Return the columns in the model's order, each with the shape [rows]."""
    check_names(given, columns)
    ordered: dict[str, tensors.WireTensor] = {}
    rows = None
    for name in columns:
        datatype, array = given[name]
        if array.ndim == 0 or array.shape[1:] not in ((), (1,)):
            raise errors.InvalidRequest(
                f"column {name!r} must have the shape [rows] or [rows, 1]; {list(array.shape)} came"
            )
        if rows not in (None, array.shape[0]):
            raise errors.InvalidRequest(
                f"column {name!r} has {array.shape[0]} rows, the columns before it have {rows}"
            )
        rows = array.shape[0]
        ordered[name] = tensors.WireTensor(datatype, array.reshape(rows))
    return ordered


def as_it_came(tensor: tensors.WireTensor) -> np.ndarray:
    """Return the array of any shape as it came; BF16, which numpy lacks, as FP32."""
    return tensors.bfloat16_values(tensor.array) if tensor.datatype == "BF16" else tensor.array


def _converted(name: str, tensor: tensors.WireTensor, datatype: str) -> np.ndarray:
    """Return the array in another numeric datatype. Raises InvalidRequest if values are lost.

    Rounding to the nearest decimal is no loss: the libraries themselves round so.
    """
    array = as_it_came(tensor)
    dtype = tensors.dtype(datatype)
    if tensor.datatype == datatype:
        return array
    if dtype.hasobject or array.dtype.hasobject or datatype == "BF16":
        raise tensors.refusal(name, datatype, tensor)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype)
        is_exact_wanted = dtype.kind != "f" or (
            datatype == "FP64" and array.dtype.kind in "iu" and array.dtype.itemsize == LONG_BYTES
        )
        if is_exact_wanted and not np.array_equal(converted.astype(array.dtype), array):
            raise errors.InvalidRequest(
                f"input {name!r} of {tensor.datatype} has values that {datatype} can't hold"
            )
    return converted
