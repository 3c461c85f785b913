"""How the HTTP server ends, and the connections that it closes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshserve import tasks
from meshserve.protocol import handler_server, http_protocol, sockets
from tests.protocol import http_calls


async def test_every_socket_is_served_and_nothing_is_left_after_the_end(
    tmp_path: Path, handler: http_calls.Handler
) -> None:
    path = tmp_path / "app.sock"
    listeners = [sockets.tcp_socket("127.0.0.1"), sockets.unix_socket(str(path))]
    running = await http_protocol.serve(handler, listeners)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(http_calls.request(b"GET /now"))
    assert (await http_calls.answer_of(reader))[2] == b"GET /now "
    writer.close()
    await running.stop()
    assert not path.exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", running.port)


async def test_an_idle_connection_does_not_hold_up_the_end(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: handler_server.HandlerServer,
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"GET /now"))
    await http_calls.answer_of(reader)
    async with asyncio.timeout(10):
        await server.stop(grace_s=60)
    assert await http_calls.ends(reader)


async def test_a_request_under_way_is_answered_before_the_end(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: handler_server.HandlerServer,
    handler: http_calls.Handler,
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(http_calls.request(b"GET /later"))
    await handler.called.acquire()
    stopping = tasks.spawn(server.stop(grace_s=60), "stop", is_awaited=True)
    await asyncio.sleep(0)
    handler.gate.set()
    _, headers, body = await http_calls.answer_of(reader)
    assert (headers[b"connection"], body) == (b"close", b"GET /later ")
    await stopping


async def test_a_request_that_takes_too_long_does_not_hold_up_the_end(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: handler_server.HandlerServer,
    handler: http_calls.Handler,
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(http_calls.request(b"GET /later"))
    await handler.called.acquire()
    await server.stop(grace_s=0.05)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await http_calls.answer_of(reader)


async def test_a_connection_that_is_silent_for_long_is_closed(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: handler_server.HandlerServer,
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"GET /now"))
    await http_calls.answer_of(reader)
    server._close_silent()
    writer.write(http_calls.request(b"GET /now"))
    await http_calls.answer_of(reader)
    server._close_silent()
    server._close_silent()
    assert await http_calls.ends(reader)
