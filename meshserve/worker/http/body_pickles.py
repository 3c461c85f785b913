"""Pickles between a worker and its process for a big body: texts in them are made in pieces.

Millions of texts in one pickle would be made, and later freed, by one call of C code each, in which
no other thread of the worker runs. So texts travel as their lengths and their bytes together.
"""

from __future__ import annotations

import pickle
import sys
from typing import IO, Any

import numpy as np

PIECE_TEXTS = 1 << 14
"""Texts that are made or freed at once, in a ms or so."""

_GAP = -1
"""Stands for None among the lengths of texts."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is not np.ndarray or value.size <= PIECE_TEXTS or value.dtype != object:
            return NotImplemented
        texts = value.ravel().tolist()
        if not {bytes, type(None)}.issuperset(map(type, texts)):
            return NotImplemented
        lengths = np.array([_GAP if text is None else len(text) for text in texts], "i8")
        joined = b"".join([text for text in texts if text is not None])
        return make_texts, (lengths, joined, value.shape)


def write(value: object, file: IO[bytes]) -> None:
    """Pickle the value into the file."""
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)


def make_texts(lengths: np.ndarray, joined: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array of this shape with the texts; None has the length -1, of shape (n,)."""
    texts = np.empty(len(lengths), object)
    end = 0
    for first in range(0, len(lengths), PIECE_TEXTS):
        piece = []
        for length in lengths[first : first + PIECE_TEXTS].tolist():
            begin, end = end, end + max(0, length)
            piece.append(None if length == _GAP else joined[begin:end])
        texts[first : first + PIECE_TEXTS] = piece
    return texts.reshape(shape)


def _references_alone() -> int:
    """Return what `sys.getrefcount` says of a variable's array that nobody else has."""
    array = np.empty(0)
    return sys.getrefcount(array)


# From Python 3.14 on an argument is not counted.
REFERENCES_ALONE = _references_alone()


def free(arrays: list[np.ndarray]) -> None:
    """Empty the list of arrays of any shape; free texts in pieces if nobody else has them."""
    while arrays:
        array = arrays.pop()
        # An array that is a view of another keeps it, and both must be nobody else's. The view
        # itself is gone when its base is looked at.
        is_ours = array.dtype.hasobject
        while is_ours:
            is_ours = sys.getrefcount(array) == REFERENCES_ALONE and array.flags.writeable
            if not isinstance(array.base, np.ndarray):
                break
            array = array.base
        if is_ours and array.base is None:
            flat = array.reshape(-1)
            for begin in range(0, array.size, PIECE_TEXTS):
                flat[begin : begin + PIECE_TEXTS] = None
