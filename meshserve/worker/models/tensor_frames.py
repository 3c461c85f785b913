"""Messages between a worker and a model's process: JSON fields, and arrays as their bytes.

A frame is the size of its header (4 bytes, little-endian), the header in JSON, and the bytes of
each array that the header lists. The bytes are copied twice on their way, into the kernel and out
of it. What comes out of a model's process is never unpickled, because its code may be hostile.
"""

from __future__ import annotations

import math
import pickle
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from meshserve import errors
from meshserve.protocol import tensors

HEADER_BYTES_MAX = 64 << 20
"""Bound of a header. It has texts such as signatures and errors, never tensors."""

JOINED_BYTES_MAX = 1 << 16
"""Frames up to this size are sent with one call: copying them once more is cheaper."""

PREFIXED, PICKLED = "bytes", "pickle"
"""Forms of object arrays: elements of type `bytes`, each with its length before it; anything."""

NUMBER_KINDS = "biufcSUmM"

_SIZE = struct.Struct("<I")


class Frame(NamedTuple):
    """One message: its fields, and its arrays by name. Arrays own their memory."""

    fields: dict[str, Any]
    arrays: dict[str, np.ndarray]


class BadFrame(Exception):
    """The peer sent bytes that are no frame."""


def send(
    connection: socket.socket,
    fields: Mapping[str, object],
    arrays: Mapping[str, np.ndarray] | None = None,
    *,
    may_pickle: bool = False,
) -> None:
    """Send a message. Arrays have any shape; object arrays have elements of type `bytes`.

    With `may_pickle` other objects are sent too. Raises ModelRaised for them without, before
    anything is sent; OSError if the peer is gone, TimeoutError by the connection's timeout.
    """
    described, parts = [], []
    for name, array in (arrays or {}).items():
        form, data = _encode(name, array, may_pickle=may_pickle)
        described.append([name, form, array.shape, len(data)])
        parts.append(data)
    header = orjson.dumps({"fields": fields, "arrays": described})
    sizes = sum(map(len, parts))
    if sizes <= JOINED_BYTES_MAX:
        connection.sendall(b"".join((_SIZE.pack(len(header)), header, *parts)))
        return
    connection.sendall(_SIZE.pack(len(header)) + header)
    for data in parts:
        connection.sendall(data)


def receive(connection: socket.socket, *, may_unpickle: bool = False) -> Frame:
    """Return the next message.

    Raises EOFError at the end of the stream, BadFrame for bytes that are no frame, OSError if the
    peer is gone, TimeoutError by the connection's timeout.
    """
    (size,) = _SIZE.unpack(_receive(connection, _SIZE.size))
    if size > HEADER_BYTES_MAX:
        raise BadFrame(f"a header of {size} bytes")
    try:
        header = orjson.loads(_receive(connection, size))
        fields, described = dict(header["fields"]), header["arrays"]
        plans = [_plan(entry, may_unpickle=may_unpickle) for entry in described]
    # NumPy reads a dtype with a comma as Python does.
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, SyntaxError) as error:
        raise BadFrame(f"{type(error).__name__}: {error}") from error
    return Frame(fields, {plan.name: _decode(plan, connection) for plan in plans})


class _Plan(NamedTuple):
    """An array that comes next: `dtype` is None for objects in one of the two forms."""

    name: str
    form: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    size_bytes: int


def _encode(name: str, array: np.ndarray, *, may_pickle: bool) -> tuple[str, Any]:
    """Return the form of an array, a dtype or one of those for objects, and its bytes."""
    if array.dtype.kind in NUMBER_KINDS:
        # Dates have no buffer, and an empty array can't be cast, so all are seen as plain bytes.
        flat = np.ascontiguousarray(array).reshape(-1)
        return array.dtype.str, flat.view("u1").data if flat.size else b""
    if all(type(element) is bytes for element in array.flat):
        return PREFIXED, tensors.to_raw(array)
    if not may_pickle:
        raise errors.ModelRaised(
            f"the model gave values for {name!r} that are neither numbers nor bytes"
        )
    return PICKLED, pickle.dumps(array.ravel().tolist())


def _plan(entry: Sequence[Any], *, may_unpickle: bool) -> _Plan:
    name, form, sizes, size_bytes = entry
    shape = tuple(map(int, sizes))
    if min(shape, default=0) < 0 or int(size_bytes) < 0:
        raise ValueError(f"{size_bytes} bytes for {form} {list(shape)}")
    if form in (PREFIXED, PICKLED):
        if form == PICKLED and not may_unpickle:
            raise ValueError("pickled values")
        return _Plan(str(name), form, None, shape, int(size_bytes))
    dtype = np.dtype(form)
    if dtype.kind not in NUMBER_KINDS:
        raise ValueError(f"the dtype {form}")
    if math.prod(shape) * dtype.itemsize != size_bytes:
        raise ValueError(f"{size_bytes} bytes for {form} {list(shape)}")
    return _Plan(str(name), form, dtype, shape, int(size_bytes))


def _decode(plan: _Plan, connection: socket.socket) -> np.ndarray:
    raw = _receive(connection, plan.size_bytes)
    if plan.dtype is not None:
        return np.ndarray(plan.shape, plan.dtype, raw)
    if plan.form == PREFIXED:
        try:
            return tensors.from_raw(memoryview(raw), "BYTES", plan.shape, plan.name)
        except errors.InvalidRequest as error:
            raise BadFrame(error.message) from error
    array = np.empty(math.prod(plan.shape), object)
    array[:] = pickle.loads(raw)  # noqa: S301 only a worker's own bytes come here
    return array.reshape(plan.shape)


def _receive(connection: socket.socket, size: int) -> bytearray:
    """Return the next `size` bytes.

    Raises EOFError if the stream ends before them, BadFrame for more than any process has.
    """
    # A claim of more than the peer sends takes address space, but no memory: pages come with bytes.
    try:
        data = bytearray(size)
    except (MemoryError, OverflowError) as error:
        raise BadFrame(f"{size} bytes") from error
    view, start = memoryview(data), 0
    # With a timeout a socket does not block in the kernel, and MSG_WAITALL waits for nothing.
    while start < size:
        count = connection.recv_into(view[start:], 0, socket.MSG_WAITALL)
        if not count:
            raise EOFError("the connection ended")
        start += count
    return data
