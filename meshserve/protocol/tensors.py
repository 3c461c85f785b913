"""Datatypes of the Open Inference Protocol and their bytes.

In memory BYTES is an object array of `bytes`, BF16 is carried as its 16 bits in uint16, and all others are numpy's own. On the wire numbers
are little-endian, and each BYTES element is a 4-byte little-endian length and its bytes.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence

import numpy as np

from meshserve import errors

DTYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("O"),
}
ELEMENTS_MAX = 1 << 40
RANK_MAX = 32

_NUMBERS = {
    datatype: (dtype, dtype.itemsize)
    for datatype, dtype in DTYPES.items()
    if datatype not in ("BOOL", "BYTES")
}
"""Datatypes whose every bit pattern is a value."""

_LITTLE = "<|=" if sys.byteorder == "little" else "<|"
_LENGTH = struct.Struct("<I")


def dtype(datatype: str) -> np.dtype[np.generic]:
    """The array type of a datatype. Raises InvalidRequest with the ones that there are."""
    try:
        return DTYPES[datatype]
    except KeyError:
        raise errors.InvalidRequest(
            f"datatype {datatype!r} is unknown; there are: {', '.join(DTYPES)}"
        ) from None


def element_count(shape: Sequence[int], name: str) -> int:
    """How many elements a shape has. Raises InvalidRequest for negative or absurd sizes."""
    if len(shape) > RANK_MAX:
        raise errors.InvalidRequest(
            f"tensor {name!r} has {len(shape)} dimensions; {RANK_MAX} is the most"
        )
    if any(size < 0 for size in shape):
        raise errors.InvalidRequest(f"tensor {name!r} has a negative size in shape {list(shape)}")
    # An empty tensor's other sizes are bounded too: numpy refuses absurd ones whether there are elements or not.
    if math.prod(size for size in shape if size) > ELEMENTS_MAX:
        raise errors.InvalidRequest(f"tensor {name!r} of shape {list(shape)} is too big")
    return math.prod(shape)


def from_raw(raw: bytes | memoryview, datatype: str, shape: Sequence[int], name: str) -> np.ndarray:
    """The tensor in raw bytes, read-only and without a copy where numpy allows. Raises InvalidRequest if they don't fit the shape.

    A view may begin at any byte of its message: such numbers are copied to where a library may read them.
    """
    sizes = tuple(shape)
    number = _NUMBERS.get(datatype)
    if number is not None and math.prod(sizes) * number[1] == len(raw):
        try:
            array: np.ndarray = np.ndarray(sizes, number[0], raw)
        except ValueError:
            pass
        else:
            return array if array.flags.aligned else _aligned(array)
    return _from_odd(bytes(raw), datatype, sizes, name)


def _aligned(array: np.ndarray) -> np.ndarray:
    copied = array.copy()
    copied.flags.writeable = False
    return copied


def _from_odd(raw: bytes, datatype: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """What is not simply numbers: it is checked value by value, or told what is wrong with it."""
    kind = dtype(datatype)
    elements = element_count(shape, name)
    if kind.hasobject:
        return _from_lengths(raw, elements, name).reshape(shape)
    expected = elements * kind.itemsize
    if len(raw) != expected:
        raise errors.InvalidRequest(
            f"tensor {name!r} of {datatype} {list(shape)} takes {expected} bytes, {len(raw)} came"
            + (": the message was cut short" if len(raw) < expected else "")
        )
    if datatype == "BOOL" and raw.translate(None, b"\x00\x01"):
        raise errors.InvalidRequest(f"tensor {name!r} of BOOL has bytes that are neither 0 nor 1")
    return np.ndarray(shape, kind, raw)


def _from_lengths(raw: bytes, elements: int, name: str) -> np.ndarray:
    if elements * 4 > len(raw):
        raise errors.InvalidRequest(
            f"tensor {name!r} has {elements} elements, its {len(raw)} bytes can't hold them"
        )
    found = np.empty(elements, object)
    at = 0
    for i in range(elements):
        end = at + 4
        if end > len(raw):
            raise errors.InvalidRequest(f"tensor {name!r} ends before element {i} of {elements}")
        (size,) = _LENGTH.unpack_from(raw, at)
        at = end + size
        if at > len(raw):
            raise errors.InvalidRequest(
                f"tensor {name!r}: element {i} claims {size} bytes, {len(raw) - end} are left"
            )
        found[i] = raw[end:at]
    if at != len(raw):
        raise errors.InvalidRequest(
            f"tensor {name!r} has {len(raw) - at} bytes more than its {elements} elements"
        )
    return found


def to_raw(array: np.ndarray) -> bytes:
    """The tensor's bytes on the wire, rows first."""
    kind = array.dtype
    if kind.kind not in "OSU":
        return (
            array.tobytes()
            if kind.byteorder in _LITTLE
            else array.astype(kind.newbyteorder("<")).tobytes()
        )
    parts = []
    for element in array.flat:
        encoded = as_bytes(element)
        parts.append(_LENGTH.pack(len(encoded)))
        parts.append(encoded)
    return b"".join(parts)


def as_bytes(element: object) -> bytes:
    """One BYTES element: bytes as they are, everything else as UTF-8 text, with `?` for what is no character."""
    return element if isinstance(element, bytes) else str(element).encode(errors="replace")


def bfloat16_bits(floats: np.ndarray) -> np.ndarray:
    """BF16's bits of FP32 numbers, rounded to the nearest, ties to even."""
    bits = floats.astype("<f4").view("<u4").astype("<u8")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(floats), 0x7FC0, rounded).astype("<u2")


def bfloat16_values(bits: np.ndarray) -> np.ndarray:
    """The FP32 numbers that BF16's bits stand for, exactly."""
    return np.asarray((bits.astype("<u4") << 16).view("<f4"))
