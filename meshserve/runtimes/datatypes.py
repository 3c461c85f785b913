"""The protocol's datatypes and numpy's, and the conversion of arrays to and from a model."""

from __future__ import annotations

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

_DATATYPES = {dtype: datatype for datatype, dtype in NUMPY_TYPES.items() if datatype != "BF16"}


def datatype_of(dtype: np.dtype) -> str | None:
    """Return the datatype for arrays of a dtype, texts being BYTES; None if there is none."""
    return "BYTES" if dtype.kind in "USO" else _DATATYPES.get(dtype)


def to_wire(values: object) -> np.ndarray:
    """Return a model's output as an array of the same shape that has a datatype.

    Texts become objects of type `bytes`, sparse matrices dense. Raises ModelRaised for values that
    no datatype covers.
    """
    to_dense = getattr(values, "toarray", None)
    array = np.asarray(to_dense() if to_dense else values)
    if array.dtype.kind in "USO":
        return to_bytes(array)
    if array.dtype not in _DATATYPES:
        raise errors.ModelRaised(
            f"the model gave values of type {array.dtype}, which the protocol has no datatype for"
        )
    return array


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
