"""Values with the datatypes that they have by themselves, and the columns of data frames.

For models that take other datatypes than those of their metadata: tabular ones, whose columns come
as in a frame, and those that declare nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from meshserve import errors
from meshserve.protocol import tensors

DATES = "mM"
# By name, so that pandas need not be imported, nor installed.
_MISSING = ("NAType", "NaTType")


class NaturalTensor(NamedTuple):
    """An array with its own datatype. Texts that are missing are None."""

    datatype: str
    array: np.ndarray


def is_frame(inputs: object) -> bool:
    """Return whether inputs are a data frame of pandas, or one that looks like it."""
    return hasattr(inputs, "columns") and hasattr(inputs, "to_numpy")


def of_frame(frame: Any) -> dict[str, Any]:
    """Return the columns [rows] of a frame by name, in its order.

    Raises InvalidRequest for two columns of one name.
    """
    columns = {str(name): frame[name] for name in frame.columns}
    if len(columns) < len(frame.columns):
        raise errors.InvalidRequest("the data frame has two columns of one name")
    return columns


def has_names(frame: Any) -> bool:
    """Return whether a frame's columns have names, and not just their numbers."""
    return any(isinstance(name, str) for name in frame.columns)


def natural(name: str, values: Any, floats: str = "FP64") -> NaturalTensor:
    """Return values in their shape; `floats` is the datatype of fractions that are in lists.

    Missing numbers are NaN. Raises InvalidRequest for dates, and for values of several kinds.
    """
    given = values.to_numpy() if hasattr(values, "to_numpy") else values
    array = _array(name, given)
    if array.dtype.kind in "OUST":
        return _of_objects(name, array)
    datatype = next((word for word, dtype in tensors.DTYPES.items() if dtype == array.dtype), None)
    if array.dtype.kind in DATES or datatype is None:
        raise errors.InvalidRequest(
            f"column {name!r} holds {array.dtype}, which no tensor holds: give numbers or texts, "
            f"such as {_remedy(array.dtype)}"
        )
    # Whoever gives an array has chosen its datatype; the numbers of a list have none.
    is_plain = not isinstance(given, np.ndarray | np.generic)
    if is_plain and array.dtype.kind == "f" and datatype != floats:
        return NaturalTensor(floats, array.astype(tensors.dtype(floats)))
    return NaturalTensor(datatype, array)


def _remedy(dtype: np.dtype[Any]) -> str:
    return '.astype("int64")' if dtype.kind in DATES else '.astype("float64")'


def _array(name: str, values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    try:
        array = np.asarray(values)
        # numpy's own texts lose zero bytes at their end, and print numbers among texts.
        return np.asarray(values, object) if array.dtype.kind in "US" else array
    except (ValueError, TypeError) as failure:
        raise errors.InvalidRequest(f"input {name}: rows of different lengths") from failure


def _of_objects(name: str, array: np.ndarray) -> NaturalTensor:
    """Return an array of texts, or of numbers that lie as objects, of the same shape."""
    items = [None if _is_missing(item) else item for item in array.ravel().tolist()]
    kinds = {type(item) for item in items if item is not None}
    has_gaps = None in items
    if (kinds and kinds <= {str, bytes}) or (not kinds and array.dtype.kind != "O"):
        texts = np.empty(len(items), object)
        texts[:] = [item.encode() if isinstance(item, str) else item for item in items]
        return NaturalTensor("BYTES", texts.reshape(array.shape))
    if kinds == {bool} and not has_gaps:
        return NaturalTensor("BOOL", np.array(items, bool).reshape(array.shape))
    if kinds <= {bool, int, float}:
        return _of_numbers(name, items, kinds, array.shape)
    words = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise errors.InvalidRequest(
        f"column {name!r} holds values of the types {words}: give numbers or texts alone"
    )


def _of_numbers(
    name: str, items: list[Any], kinds: set[type], shape: tuple[int, ...]
) -> NaturalTensor:
    try:
        if kinds == {int} and None not in items:
            return NaturalTensor("INT64", np.array(items, np.int64).reshape(shape))
        numbers = np.array([np.nan if item is None else item for item in items], np.float64)
    except OverflowError:
        raise errors.InvalidRequest(f"column {name!r} holds numbers beyond 64 bits") from None
    whole = [
        (item, number)
        for item, number in zip(items, numbers.tolist(), strict=True)
        if isinstance(item, int)
    ]
    if any(item != number for item, number in whole):
        raise errors.InvalidRequest(
            f"column {name!r} holds whole numbers that FP64 can't, beside missing ones or fractions"
        )
    return NaturalTensor("FP64", numbers.reshape(shape))


def _is_missing(item: Any) -> bool:
    """Return whether an item stands for none: None, NaN, and pandas' own, which equal nothing."""
    return item is None or type(item).__name__ in _MISSING or item != item  # noqa: PLR0124 NaN
