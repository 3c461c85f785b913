"""Frames carry every array that a model takes or gives, unchanged, and refuse what is no frame."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest

from meshserve import errors
from meshserve.runtimes import datatypes
from meshserve.worker.models import tensor_frames

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def carried(pair: Pair, array: np.ndarray, *, may_pickle: bool = False) -> np.ndarray:
    """Send an array and return it as it arrives."""
    sending = threading.Thread(
        target=tensor_frames.send,
        args=(pair[0], {}, {"a": array}),
        kwargs={"may_pickle": may_pickle},
    )
    sending.start()
    frame = tensor_frames.receive(pair[1], may_unpickle=may_pickle)
    sending.join()
    return frame.arrays["a"]


ARRAYS = [
    *(np.zeros((2, 3), dtype) for dtype in datatypes.NUMPY_TYPES.values() if dtype.kind != "O"),
    np.array(7.5),
    np.empty((0, 4), np.float32),
    np.empty((3, 0), np.int8),
    np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    np.arange(10)[::-2],
    np.array([1, 2], ">i4"),
    np.array([np.nan, np.inf, -0.0]),
    np.array(["ä", "bc"]),
    np.array([b"a", b"bcd"]),
    np.array(["2020-01-01", "NaT"], "M8[D]"),
    np.zeros(1 << 20, np.uint8),
    np.zeros((1 << 16) + 1, np.uint8),
    np.array([[b"", b"\x00\xff"], ["ä".encode(), b"x" * 70000]], object),
    np.array(b"alone", object).reshape(()),
    np.empty((0,), object),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{list(array.shape)}")
def test_an_array_arrives_as_it_was(pair: Pair, array: np.ndarray) -> None:
    arrived = carried(pair, array)
    assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(arrived, array)
    assert arrived.flags.aligned


@pytest.mark.parametrize("values", [["a", None, 1.5], [b"a", "b"], [1, 2**70]], ids=str)
def test_a_worker_may_send_a_column_of_any_objects(pair: Pair, values: list[object]) -> None:
    array = np.array(values, object)
    assert carried(pair, array, may_pickle=True).tolist() == values


def test_a_model_may_not(pair: Pair) -> None:
    with pytest.raises(errors.ModelRaised, match="'a' that are neither numbers nor bytes"):
        tensor_frames.send(pair[0], {}, {"a": np.array(["text"], object)})


class Hostile:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("what a model's process sent was unpickled",))


def sent(pair: Pair, header: bytes, rest: bytes = b"") -> None:
    pair[0].sendall(struct.pack("<I", len(header)) + header + rest)
    pair[0].shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "described",
    [
        [["a", "pickle", [1], 5]],
        [["a", "O", [1], 8]],
        [["a", "|O8", [1], 8]],
        [["a", "<f4", [2], 4]],
        [["a", "<f4", [-1, -1], 4]],
        [["a", "<f4", [1 << 40, 1 << 40], 4]],
        [["a", "<f4", [1 << 59], 1 << 61]],
        [["a", "nonsense", [1], 4]],
        [["a", "bytes", [2], -1]],
        [["a", "bytes", [-1], 4]],
        [["a", "bytes", [1], 1 << 62]],
        [["a", "bytes", [3], 4]],
        [["a"]],
        7,
    ],
    ids=str,
)
def test_what_is_no_frame_is_refused(pair: Pair, described: object) -> None:
    rest = pickle.dumps([Hostile()])
    sent(pair, orjson.dumps({"fields": {}, "arrays": described}), rest + b"\x00" * 16)
    with pytest.raises(tensor_frames.BadFrame):
        tensor_frames.receive(pair[1])


@pytest.mark.parametrize("header", [b"{", b"[]", b"{}", b'{"fields": 3, "arrays": []}'], ids=str)
def test_a_header_that_is_none_is_refused(pair: Pair, header: bytes) -> None:
    sent(pair, header)
    with pytest.raises(tensor_frames.BadFrame):
        tensor_frames.receive(pair[1])


def test_a_huge_header_is_refused_before_it_is_read(pair: Pair) -> None:
    pair[0].sendall(struct.pack("<I", tensor_frames.HEADER_BYTES_MAX + 1))
    with pytest.raises(tensor_frames.BadFrame, match="a header of"):
        tensor_frames.receive(pair[1])


@pytest.mark.parametrize("part", [0, 3, 10])
def test_a_stream_that_ends_is_no_message(pair: Pair, part: int) -> None:
    header = orjson.dumps({"fields": {}, "arrays": []})
    pair[0].sendall((struct.pack("<I", len(header)) + header)[:part])
    pair[0].close()
    with pytest.raises(EOFError):
        tensor_frames.receive(pair[1])
