"""The tensors in what an estimator returns: arrays, lists of arrays, and data frames."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import datatypes, signatures

TABLE_RANK = 2

_FLOATS = ("FP64", "FP32", "FP16")
_WHOLE = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")

Function = Callable[[Any], object]


class Form(enum.Enum):
    """What a function returns for rows.

    ARRAY: one array. TARGETS: a list with an array [rows, …] for each target, which becomes one
    array [rows, targets, …]. RAGGED: such a list whose arrays differ in their other dimensions, so
    that each target is an output. COLUMNS: a data frame, or a table of mixed types, each column of
    which is an output.
    """

    ARRAY = "array"
    TARGETS = "targets"
    RAGGED = "ragged"
    COLUMNS = "columns"


@dataclass(frozen=True, slots=True)
class OutputSource:
    """The place of one output: the function that computes it, and its part of what that returns.

    `part` is the number of a target or the name of a column; None is the whole.
    """

    function: str
    form: Form
    part: int | str | None = None


def find_sources(name: str, one: Any, many: object) -> dict[str, OutputSource]:
    """Return the outputs of the function `name` by their names.

    `one` and `many` are what it returns for one row and for several, `many` None if unknown. A list
    of targets has as many arrays for one row as for many, a list of rows has not.
    """
    if _is_frame(one):
        return {
            str(column): OutputSource(name, Form.COLUMNS, str(column)) for column in _frame(one)
        }
    if isinstance(one, (list, tuple)) and _are_targets(one, many):
        if len({np.shape(array)[1:] for array in one}) == 1:
            return {name: OutputSource(name, Form.TARGETS)}
        return {
            f"{name}_{place}": OutputSource(name, Form.RAGGED, place) for place in range(len(one))
        }
    if _is_mixed(one):
        return {
            f"{name}_{place}": OutputSource(name, Form.COLUMNS, place)
            for place in range(np.shape(one)[1])
        }
    return {name: OutputSource(name, Form.ARRAY)}


def extract(source: OutputSource, returned: object) -> np.ndarray:
    """Return the output in wire form, rows first, from what its function returned.

    Raises ModelRaised if that has another form than when the model was loaded.
    """
    try:
        return datatypes.to_wire(_part(source, returned))
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise errors.ModelRaised(
            f"{source.function} returned something else than when the model was loaded: {error}"
        ) from None


def _part(source: OutputSource, returned: Any) -> object:
    if source.form is Form.TARGETS:
        return np.stack([np.asarray(array) for array in returned], axis=1)
    if source.form is Form.RAGGED:
        return returned[source.part]
    if source.form is Form.COLUMNS and isinstance(source.part, str):
        return _frame(returned)[source.part]
    if source.form is Form.COLUMNS:
        return np.asarray(returned)[:, int(source.part or 0)]
    return returned


def _is_frame(returned: Any) -> bool:
    return hasattr(returned, "columns") and hasattr(returned, "to_numpy")


def _frame(returned: Any) -> Mapping[str, np.ndarray]:
    """Return the columns of a pandas or polars frame by their names."""
    return {str(name): returned[name].to_numpy() for name in returned.columns}


def _are_targets(one: list[Any] | tuple[Any, ...], many: object) -> bool:
    """Return whether a list holds an array for each target, and not a value for each row."""
    if not one or any(not isinstance(array, np.ndarray) or array.ndim == 0 for array in one):
        return False
    if any(array.shape[0] != 1 for array in one):
        return False
    # One row may be a list of one array too: only several rows show which of both it is.
    if len(one) > 1:
        return True
    return isinstance(many, (list, tuple)) and len(many) == 1


def _is_mixed(returned: Any) -> bool:
    """Return whether a table holds texts beside numbers, in columns of their own."""
    if not isinstance(returned, np.ndarray) or returned.dtype.kind != "O":
        return False
    if returned.ndim != TABLE_RANK:
        return False
    is_text = [isinstance(item, (str, bytes)) for item in returned.ravel().tolist()]
    return any(is_text) and not all(is_text)


def agree(
    declared: Sequence[model.TensorSpec], actual: Sequence[model.TensorSpec]
) -> dict[model.TensorSpec, str]:
    """Return the outputs to serve, each with the model's own name for it.

    An output may be declared with another numeric datatype that holds its values, and with a last
    dimension of 1 more or less: Triton's FIL folders declare scores as FP32 [rows, 1]. Raises
    LoadFailed if the declaration is wrong otherwise.
    """
    if not declared:
        return {spec: spec.name for spec in actual}
    signatures.check_specs(declared, "output")
    pairs = signatures.pair(declared, actual, "output")
    for spec, own in pairs:
        datatype = spec.datatype if _can_become(own.datatype, spec.datatype) else own.datatype
        shape = own.shape
        if len(spec.shape) == len(shape) + 1 and spec.shape[-1] == 1:
            shape = (*shape, 1)
        elif len(spec.shape) == len(shape) - 1 and shape[-1] == 1:
            shape = shape[:-1]
        signatures.check_true(spec, model.TensorSpec(own.name, datatype, shape), "output")
    return {spec: own.name for spec, own in pairs}


def _can_become(actual: str, declared: str) -> bool:
    if actual == "BYTES" or declared not in (*_FLOATS, *_WHOLE):
        return False
    return declared in _FLOATS or (actual in _WHOLE and declared in _WHOLE)


def conform(array: np.ndarray, spec: model.TensorSpec) -> np.ndarray:
    """Return an output with the datatype and the rank of its spec.

    Raises ModelRaised for whole numbers that the datatype can't hold.
    """
    dtype = datatypes.NUMPY_TYPES[spec.datatype]
    if array.ndim == len(spec.shape) - 1 and spec.shape[-1] == 1:
        array = array[..., None]
    elif array.ndim == len(spec.shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype == dtype or not _can_become(str(_datatype(array)), spec.datatype):
        return array
    # A cast cuts fractions and wraps big numbers without a word, hence the comparison.
    converted = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(converted, array):
        raise errors.ModelRaised(
            f"output {spec.name!r} has values that its datatype {spec.datatype} can't hold"
        )
    return converted


def _datatype(array: np.ndarray) -> str | None:
    return datatypes.datatype_of(array.dtype)
