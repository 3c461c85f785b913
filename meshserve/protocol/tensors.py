"""Datatypes of the Open Inference Protocol and their bytes.

In memory BYTES is an object array of `bytes`, BF16 is its 16 bits in uint16, all others are numpy's
own. On the wire numbers are little-endian, and each BYTES element is a 4-byte little-endian length
and its bytes.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from meshserve import errors
from meshserve.core.values import model

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

MISFIT = "BYTES "
"""What the datatype of texts begins with that do not fill their shape: no signature has it."""

GAPS = f"{MISFIT}has null, which only text columns of data frames may have"
"""The datatype of texts with gaps, which are None."""
RANK_MAX = 32

NUMBERS = {
    datatype: (dtype, dtype.itemsize)
    for datatype, dtype in DTYPES.items()
    if datatype not in ("BOOL", "BYTES")
}
"""Datatypes of which every bit pattern is a valid value."""

# What numpy calls the byte orders whose bytes are those on the wire.
_LITTLE = "<|=" if sys.byteorder == "little" else "<|"
_LENGTH = struct.Struct("<I")


class WireTensor(NamedTuple):
    """One named input as it came: an array with the dtype of the datatype."""

    datatype: str
    array: np.ndarray


def dtype(datatype: str) -> np.dtype[np.generic]:
    """Return the numpy dtype of a datatype. Raises InvalidRequest, naming those that exist."""
    try:
        return DTYPES[datatype]
    except KeyError:
        raise errors.InvalidRequest(
            f"datatype {datatype!r} is unknown; there are: {', '.join(DTYPES)}"
        ) from None


def answered(signature: model.Signature, outputs: Mapping[str, np.ndarray]) -> model.Signature:
    """Return the signature of an answer of any shapes.

    One with open outputs has the answer's own, if it has not their names and datatypes already.
    Raises ModelRaised for an array whose dtype is no datatype's.
    """
    is_free = signature.has_open_outputs or not signature.outputs
    if not signature.is_open and (not is_free or _has_outputs(signature, outputs)):
        return signature
    return replace(signature, outputs=specs_of(outputs))


def _has_outputs(signature: model.Signature, outputs: Mapping[str, np.ndarray]) -> bool:
    known = {spec.name: spec.datatype for spec in signature.outputs}
    return all(
        name in known and array.dtype == DTYPES[known[name]] for name, array in outputs.items()
    )


def specs_of(arrays: Mapping[str, np.ndarray]) -> tuple[model.TensorSpec, ...]:
    """Return the names, datatypes and shapes of arrays of any shapes.

    Raises ModelRaised for a dtype that is no datatype's.
    """
    return tuple(
        model.TensorSpec(name, _datatype(name, array), array.shape)
        for name, array in arrays.items()
    )


def _datatype(name: str, array: np.ndarray) -> str:
    if array.dtype.kind in "OSU":
        return "BYTES"
    for datatype, kind in DTYPES.items():
        if array.dtype == kind:
            return datatype
    raise errors.ModelRaised(f"output {name!r} is of {array.dtype}, which is no datatype")


def refusal(name: str, datatype: str, tensor: WireTensor) -> errors.InvalidRequest:
    """Return the error for a tensor of any shape that is not of the datatype, or no tensor."""
    if tensor.datatype.startswith(MISFIT):
        return errors.InvalidRequest(f"input {name!r} {tensor.datatype.removeprefix(MISFIT)}")
    return errors.InvalidRequest(f"input {name!r} must be {datatype}, {tensor.datatype} came")


def element_count(shape: Sequence[int], name: str) -> int:
    """Return the number of elements of a shape. Raises InvalidRequest for impossible sizes."""
    if len(shape) > RANK_MAX:
        raise errors.InvalidRequest(
            f"tensor {name!r} has {len(shape)} dimensions; {RANK_MAX} is the most"
        )
    if any(size < 0 for size in shape):
        raise errors.InvalidRequest(f"tensor {name!r} has a negative size in shape {list(shape)}")
    # An empty tensor's other sizes count too: numpy refuses huge ones even without elements.
    if math.prod(size for size in shape if size) > ELEMENTS_MAX:
        raise errors.InvalidRequest(f"tensor {name!r} of shape {list(shape)} is too big")
    return math.prod(shape)


def from_raw(raw: bytes | memoryview, datatype: str, shape: Sequence[int], name: str) -> np.ndarray:
    """Return the tensor of this datatype and shape in raw bytes: read-only, not copied if possible.

    A view may begin at any byte of its message; unaligned numbers are copied, for some libraries
    crash on them. Raises InvalidRequest if the bytes do not fit the shape.
    """
    sizes = tuple(shape)
    number = NUMBERS.get(datatype)
    # An empty tensor's huge sizes pass here, and are refused by numpy once it is converted.
    if number is not None and math.prod(sizes) * number[1] == len(raw) != 0:
        # numpy refuses impossible shapes itself; checks before it would take longer than it does.
        try:
            array: np.ndarray = np.ndarray(sizes, number[0], raw)
        except ValueError:
            pass
        else:
            return array if array.flags.aligned else _aligned(array)
    # As bytes, because a view has no `translate`, and elements of BYTES must not be views.
    return _from_odd_raw(bytes(raw), datatype, sizes, name)


def _aligned(array: np.ndarray) -> np.ndarray:
    copied = array.copy()
    # Read-only like all others: whether a model may write must not depend on alignment.
    copied.flags.writeable = False
    return copied


def _from_odd_raw(raw: bytes, datatype: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return a BOOL or BYTES tensor after a check of its values, or raise for a wrong tensor."""
    kind = dtype(datatype)
    elements = element_count(shape, name)
    if kind.hasobject:
        return _from_prefixed(raw, elements, name).reshape(shape)
    expected = elements * kind.itemsize
    if len(raw) != expected:
        raise errors.InvalidRequest(
            f"tensor {name!r} of {datatype} {list(shape)} takes {expected} bytes, {len(raw)} came"
            + (": the message was cut short" if len(raw) < expected else "")
        )
    # In C, without an array: what is left once the valid bytes are deleted is wrong.
    if datatype == "BOOL" and raw.translate(None, b"\x00\x01"):
        raise errors.InvalidRequest(f"tensor {name!r} of BOOL has bytes that are neither 0 nor 1")
    return np.ndarray(shape, kind, raw)


def _from_prefixed(raw: bytes, elements: int, name: str) -> np.ndarray:
    """Return the BYTES elements, each of which has its length before it, as a flat array."""
    if elements * _LENGTH.size > len(raw):
        raise errors.InvalidRequest(
            f"tensor {name!r} has {elements} elements, its {len(raw)} bytes can't hold them"
        )
    # Only now: a short message must not be able to claim memory for many elements.
    array = np.empty(elements, object)
    end = 0
    for i in range(elements):
        start = end + _LENGTH.size
        if start > len(raw):
            raise errors.InvalidRequest(f"tensor {name!r} ends before element {i} of {elements}")
        (size,) = _LENGTH.unpack_from(raw, end)
        end = start + size
        if end > len(raw):
            raise errors.InvalidRequest(
                f"tensor {name!r}: element {i} claims {size} bytes, {len(raw) - start} are left"
            )
        array[i] = raw[start:end]
    if end != len(raw):
        raise errors.InvalidRequest(
            f"tensor {name!r} has {len(raw) - end} bytes more than its {elements} elements"
        )
    return array


def to_raw(array: np.ndarray) -> bytes:
    """Return the bytes of a tensor of any shape on the wire, the last dimension fastest."""
    kind = array.dtype
    if kind.kind in "OSU":
        encoded = map(as_bytes, array.flat)
        return b"".join(part for item in encoded for part in (_LENGTH.pack(len(item)), item))
    if kind.byteorder in _LITTLE:
        return array.tobytes()
    return array.astype(kind.newbyteorder("<")).tobytes()


def as_bytes(element: object) -> bytes:
    """Return one BYTES element: bytes as they are, all else as UTF-8 text, "?" for surrogates."""
    return element if isinstance(element, bytes) else str(element).encode(errors="replace")


def bfloat16_bits(floats: np.ndarray) -> np.ndarray:
    """Return BF16 as uint16 of the same shape: FP32 rounded to the nearest, ties to even."""
    # In 64 bits, because the sum below may need more than 32.
    bits = floats.astype("<f4").view("<u4").astype("<u8")
    # Half of the last bit that stays, less one where that bit is 0: so ties go to even.
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    # Cut short, the bits of a NaN may be those of an infinity.
    return np.where(np.isnan(floats), 0x7FC0, rounded).astype("<u2")


def bfloat16_values(bits: np.ndarray) -> np.ndarray:
    """Return the FP32 numbers, of the same shape, that BF16's uint16 bits mean exactly."""
    return np.asarray((bits.astype("<u4") << 16).view("<f4"))
