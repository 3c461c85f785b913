from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from meshserve.worker.http import body_pickles


def texts_of(values: Sequence[bytes | None]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def pickled(value: object) -> bytes:
    file = io.BytesIO()
    body_pickles.write(value, file)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(-1,), (-1, 2), (1, -1, 4)])
@pytest.mark.parametrize("gap", [b"", None])
def test_texts_arrive_as_they_were(shape: tuple[int, ...], gap: bytes | None) -> None:
    values = [gap, b"\xff\x00", "größe".encode(), b"x" * 300] * body_pickles.PIECE_TEXTS
    array = texts_of(values).reshape(shape)
    came = pickle.loads(pickled({"y": array}))["y"]
    assert (came.dtype, came.shape, came.flags.writeable) == (array.dtype, array.shape, True)
    assert came.tolist() == array.tolist()


def test_other_arrays_are_pickled_as_ever() -> None:
    odd = np.array([b"a", 1, None, 2.5] * body_pickles.PIECE_TEXTS, object)
    few, numbers = texts_of([b"a", None]), np.arange(100_000.0)
    came = pickle.loads(pickled([odd, few, numbers]))
    assert [array.tolist() for array in came] == [odd.tolist(), few.tolist(), numbers.tolist()]


@pytest.mark.parametrize("keep", [lambda array: array, lambda array: array[3:9], np.ndarray.ravel])
@pytest.mark.parametrize("shape", [(-1,), (-1, 2)])
def test_what_somebody_else_has_is_left_alone(
    keep: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
) -> None:
    arrays = [texts_of([b"abc"] * 2 * body_pickles.PIECE_TEXTS).reshape(shape)]
    kept = keep(arrays[0])
    body_pickles.free(arrays)
    assert (arrays, set(kept.ravel().tolist())) == ([], {b"abc"})


@pytest.mark.parametrize("shape", [(-1,), (-1, 2)])
def test_what_nobody_else_has_is_freed(shape: tuple[int, ...]) -> None:
    text = b"abc" * 100
    before = sys.getrefcount(text)
    body_pickles.free([texts_of([text] * 2 * body_pickles.PIECE_TEXTS).reshape(shape)])
    assert sys.getrefcount(text) == before
