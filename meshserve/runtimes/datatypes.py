"""The protocol's datatypes and numpy's, and the conversion of arrays to and from a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.values import model

NUMPY_TYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.uint16),
    "BYTES": np.dtype(np.object_),
}
"""The dtype of a datatype's arrays. BF16 is held as its bits, BYTES as objects of type `bytes`."""

_NUMBERS = (bool, int, float, np.number, np.bool_)

# BF16 is left out, because its bits have the dtype of UINT16.
_DATATYPES = {dtype: datatype for datatype, dtype in NUMPY_TYPES.items() if datatype != "BF16"}


class NoDatatype(errors.ModelRaised):
    """A model gave numbers of a kind that the protocol lacks, such as complex ones or dates."""


def datatype_of(dtype: np.dtype) -> str | None:
    """Return the datatype for arrays of a dtype, texts being BYTES; None if there is none."""
    return "BYTES" if dtype.kind in "USO" else _DATATYPES.get(dtype)


def to_wire(values: object) -> np.ndarray:
    """Return a model's output as an array of the same shape that has a datatype.

    Texts become objects of type `bytes`, sparse matrices dense, tensors of torch arrays (bfloat16
    as float32), numbers that lie as objects plain ones. Raises ModelRaised for values that no
    datatype covers: None, masked values, and texts among numbers included.
    """
    array = _to_array(values)
    # Bytes are sent as they lie in memory, so they need this machine's order.
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "O":
        array = _of_objects(array)
    if array.dtype.kind in "USO":
        return to_bytes(array)
    if array.dtype not in _DATATYPES:
        raise NoDatatype(
            f"the model gave values of type {array.dtype}, which the protocol has no datatype for"
        )
    return array


def _to_array(values: object) -> np.ndarray:
    """Return values as an array of any dtype, texts that came in lists as objects."""
    if values is None:
        raise errors.ModelRaised("the model gave None where a tensor belongs")
    # `np.asarray` would show the values below the mask as if they counted.
    if np.ma.is_masked(values):
        raise errors.ModelRaised("the model gave masked values: fill them (`.filled(…)`)")
    try:
        if isinstance(values, np.ndarray):
            return np.asarray(values)
        array = np.asarray(_to_plain(values))
        if array.dtype == np.float64:
            array = _unrounded(values, array)
        # The fixed-width dtypes of numpy drop zeros at the end, and print numbers among texts.
        return np.asarray(values, np.object_) if array.dtype.kind in "US" else array
    except (ValueError, TypeError, RuntimeError) as error:
        raise errors.ModelRaised(f"the model gave values that form no tensor: {error}") from None


EXACT_MAX = 1 << 53
"""From here on doubles leave out whole numbers."""


def _unrounded(values: Any, rounded: np.ndarray) -> np.ndarray:
    """Return whole numbers that numpy made doubles of, as it does beyond int64, without rounding.

    Raises ModelRaised if neither of them fits into the same datatype.
    """
    is_big = np.abs(rounded) >= EXACT_MAX
    if not is_big.any():
        return rounded
    exact = np.asarray(values, np.object_)
    if not all(isinstance(number, (int, np.integer)) for number in exact.ravel().tolist()):
        return rounded
    if min(exact.ravel().tolist()) < 0:
        raise errors.ModelRaised("the model gave whole numbers that no one datatype holds")
    return exact.astype(np.uint64)


def _to_plain(values: Any) -> object:
    """Return what numpy makes an array of: a sparse matrix dense, a tensor of torch without grad.

    Known by their methods, because importing the libraries takes seconds.
    """
    if hasattr(values, "toarray"):
        return values.toarray()
    if not hasattr(values, "detach"):
        return values
    # torch converts no tensor that needs a gradient, is sparse, or is lazily conjugated.
    tensor = values.detach().cpu().to_dense().resolve_conj().resolve_neg()
    # numpy has no bfloat16; float32 holds each of its values.
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def _of_objects(array: np.ndarray) -> np.ndarray:
    """Return an array of objects with the dtype that holds them all, of the same shape."""
    kinds = {type(item) for item in array.ravel().tolist()}
    if all(issubclass(kind, (str, bytes)) for kind in kinds):
        return array
    if all(issubclass(kind, (*_NUMBERS, type(None))) for kind in kinds):
        numbers = _plain_numbers(array.tolist(), has_gaps=type(None) in kinds)
        if numbers.dtype.kind != "O":
            return numbers.reshape(array.shape)
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise errors.ModelRaised(
        f"the model gave one tensor with values of the types {names}, "
        "which the protocol has no datatype for"
    )


def _plain_numbers(values: list[Any], *, has_gaps: bool) -> np.ndarray:
    """Return numbers with the narrowest dtype for all, or as objects; a gap, None, is NaN."""
    try:
        array = np.array(values, dtype=np.float64 if has_gaps else None)
        is_float = array.dtype == np.float64
        return _unrounded(values, array) if is_float and not has_gaps else array
    except OverflowError:
        # Python's integers have no bound, but floats and int64 have.
        return np.array(values, dtype=np.object_)


def writable(array: np.ndarray) -> np.ndarray:
    """Return the array, or a copy of the same shape and dtype if it can't be written.

    The classes of users change what they get.
    """
    return array if array.flags.writeable else array.copy()


def owned(array: np.ndarray, given: object) -> np.ndarray:
    """Return an output of the same shape and dtype that later runs don't change.

    `given` is what a class gave, from which the array was made. A class may use its buffers again
    while the answer is still being sent.
    """
    return array.copy() if array is given or array.base is not None else array


def to_bytes(array: np.ndarray) -> np.ndarray:
    """Return an object array of `bytes` of the same shape: texts in UTF-8, the rest as printed."""
    return _objects(
        [
            item if isinstance(item, bytes) else str(item).encode()
            for item in array.ravel().tolist()
        ],
        array.shape,
    )


def to_texts(array: np.ndarray) -> np.ndarray:
    """Return an object array of `bytes` as one of `str`, of the same shape.

    Raises InvalidRequest if an item is not UTF-8.
    """
    try:
        return _objects(
            [
                item.decode() if isinstance(item, bytes) else str(item)
                for item in array.ravel().tolist()
            ],
            array.shape,
        )
    except UnicodeDecodeError as error:
        raise errors.InvalidRequest(
            f"the model takes texts, and one of them is not UTF-8: {error.reason}"
        ) from None


def _objects(items: list[object], shape: tuple[int, ...]) -> np.ndarray:
    # np.array would make a fixed-width text type of them.
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    return array.reshape(shape)


def spec_for(
    name: str, array: np.ndarray, shape: tuple[int, ...] | None = None
) -> model.TensorSpec:
    """Return the spec of an array in wire form; `shape` replaces the array's own."""
    datatype = datatype_of(array.dtype) or str(array.dtype)
    return model.TensorSpec(name, datatype, array.shape if shape is None else shape)
