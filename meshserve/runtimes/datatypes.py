"""The protocol's words for datatypes and numpy's, and arrays as they go to and from a model."""

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
"""Word → how numpy holds it: BF16 as its bits, BYTES as objects of `bytes`."""

NUMERIC = frozenset(NUMPY_TYPES) - {"BYTES", "BF16"}

_WORDS = {dtype: word for word, dtype in NUMPY_TYPES.items() if word != "BF16"}


def word_of(dtype: np.dtype) -> str | None:
    """The word for arrays of this dtype as models give them (texts are BYTES), None if there is none."""
    return "BYTES" if dtype.kind in "USO" else _WORDS.get(dtype)


def as_wire(values: object) -> np.ndarray:
    """What a model gave as an array that has a word: texts become objects of bytes, sparse matrices dense.

    Raises ModelRaised for values that no word covers.
    """
    to_dense = getattr(values, "toarray", None)
    array = np.asarray(to_dense() if to_dense else values)
    if array.dtype.kind in "USO":
        return as_bytes(array)
    if array.dtype not in _WORDS:
        raise errors.ModelRaised(
            f"the model gave values of type {array.dtype}, which the protocol has no datatype for"
        )
    return array


def as_bytes(array: np.ndarray) -> np.ndarray:
    """Texts, bytes or other objects, each as `bytes` (texts in UTF-8, the rest as they print), in an object array of the same shape."""
    flat = [_one_as_bytes(item) for item in array.ravel().tolist()]
    encoded = np.empty(len(flat), dtype=np.object_)
    encoded[:] = flat
    return encoded.reshape(array.shape)


def _one_as_bytes(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


def as_texts(array: np.ndarray) -> np.ndarray:
    """An object array of bytes as one of `str`. Raises InvalidRequest where it is not UTF-8."""
    try:
        flat = [
            item.decode() if isinstance(item, bytes) else str(item)
            for item in array.ravel().tolist()
        ]
    except UnicodeDecodeError as error:
        raise errors.InvalidRequest(
            f"the model takes texts, and one of them is not UTF-8: {error.reason}"
        ) from None
    texts = np.empty(len(flat), dtype=np.object_)
    texts[:] = flat
    return texts.reshape(array.shape)


def spec_of(name: str, array: np.ndarray, shape: tuple[int, ...] | None = None) -> model.TensorSpec:
    """The spec that an array in wire form fits."""
    return model.TensorSpec(
        name, word_of(array.dtype) or str(array.dtype), array.shape if shape is None else shape
    )
