"""The calls that a model's process answers, without a process around them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from meshserve.worker.models import model_process, tensor_frames


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """The worker's end of a connection that is served by a thread of this process."""
    ours, theirs = socket.socketpair()
    server = model_process._ModelServer()
    thread = threading.Thread(target=server.answer_calls, args=(theirs,))
    thread.start()
    with ours:
        yield ours
    thread.join()


def ask(connection: socket.socket, **fields: Any) -> dict[str, Any]:
    tensor_frames.send(connection, fields)
    return tensor_frames.receive(connection).fields


def test_a_call_before_the_load_is_an_error(connection: socket.socket) -> None:
    answer = ask(connection, call="predict", outputs=[])
    assert answer["raised"] == "AssertionError: the model is not loaded"


def test_an_unknown_call_is_an_error_and_the_next_one_is_answered(
    connection: socket.socket,
) -> None:
    assert "does not exist" in ask(connection, call="dance")["raised"]
    assert "does not exist" in ask(connection, call="sing")["raised"]
