"""A strict reader of Universal Binary JSON (https://ubjson.org, draft 12).

XGBoost's own reader may crash the process on a file that is cut short.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

# Each level takes several calls, so a file without a bound could exhaust Python's stack.
DEPTH_MAX = 64

# UBJSON's numbers are big-endian.
_NUMBERS = {
    b"i": ">i1",
    b"U": ">u1",
    b"I": ">i2",
    b"l": ">i4",
    b"L": ">i8",
    b"d": ">f4",
    b"D": ">f8",
}
_COUNT_BYTES = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8}
_SCALARS = {
    marker: struct.Struct(f">{code}") for marker, code in zip(_NUMBERS, "bBhiqfd", strict=True)
}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}


class Malformed(ValueError):
    """The bytes are not one whole UBJSON value."""


def loads(content: bytes) -> Any:
    """Return the value in the bytes, with typed arrays as one-dimensional numpy arrays.

    Raises Malformed if they are not exactly one value.
    """
    reader = _Reader(content)
    try:
        value = reader.value(0)
    except (struct.error, KeyError, UnicodeDecodeError, ValueError) as error:
        raise Malformed(f"at byte {reader.at}: {error or type(error).__name__}") from None
    if reader.at != len(content):
        raise Malformed(f"{len(content) - reader.at} bytes are left over")
    return value


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def value(self, depth: int) -> Any:
        return self._value_of(self._take(1), depth)

    def _value_of(self, marker: bytes, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise Malformed("nested too deeply")
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == b"S":
            return self._text()
        if marker == b"[":
            return self._array(depth)
        if marker == b"{":
            return self._object(depth)
        if marker not in _SCALARS:
            raise Malformed(f"unknown marker {marker!r}")
        scalar = _SCALARS[marker]
        return scalar.unpack(self._take(scalar.size))[0]

    def _take(self, count: int) -> bytes:
        piece = self._content[self.at : self.at + count]
        if len(piece) < count:
            raise Malformed("the file ends too early")
        self.at += count
        return piece

    def _peek(self) -> bytes:
        return self._content[self.at : self.at + 1]

    def _numbers(self, marker: bytes, count: int) -> np.ndarray:
        if marker not in _NUMBERS:
            raise Malformed(f"unknown marker {marker!r}")
        dtype = np.dtype(_NUMBERS[marker])
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _count(self) -> int:
        size = _COUNT_BYTES.get(self._take(1), 0)
        count = int.from_bytes(self._take(size), "big", signed=True) if size else -1
        # An element takes at least a byte: a greater length would only cost memory.
        if not 0 <= count <= len(self._content):
            raise Malformed("an impossible length")
        return count

    def _text(self) -> str:
        return self._take(self._count()).decode()

    def _array(self, depth: int) -> Any:
        if self._peek() == b"$":
            self._take(1)
            marker = self._take(1)
            if self._take(1) != b"#":
                raise Malformed("a typed array without its length")
            return self._numbers(marker, self._count())
        if self._peek() == b"#":
            self._take(1)
            return [self.value(depth + 1) for _ in range(self._count())]
        return self._open_array(depth)

    def _open_array(self, depth: int) -> list[Any]:
        items = []
        while (marker := self._take(1)) != b"]":
            items.append(self._value_of(marker, depth + 1))
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        members = {}
        while self._peek() != b"}":
            name = self._text()
            members[name] = self.value(depth + 1)
        self._take(1)
        return members
