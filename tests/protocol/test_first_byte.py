"""One socket for HTTP and for frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop

from meshserve.protocol import first_byte, handler_server, sockets
from tests import support
from tests.protocol import http_calls, test_frames


@pytest.fixture
async def server(handler: http_calls.Handler) -> AsyncIterator[handler_server.HandlerServer]:
    running = handler_server.HandlerServer(
        handler, [sockets.tcp_socket("127.0.0.1")], first_byte.maker("")
    )
    await running.start()
    yield running
    await running.stop(grace_s=0)


async def both_are_answered(server: handler_server.HandlerServer) -> None:
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(http_calls.request(b"GET /now"))
        assert (await http_calls.answer_of(reader))[2] == b"GET /now "
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(test_frames.frame(b"/now"))
        assert (await test_frames.read(reader)).body == b"POST /now "
        writer.close()


async def test_http_and_frames_come_to_one_socket(server: handler_server.HandlerServer) -> None:
    await both_are_answered(server)


def test_it_runs_on_uvloop_too() -> None:
    async def serve_and_ask() -> Any:
        handler = http_calls.Handler()
        server = handler_server.HandlerServer(
            handler, [sockets.tcp_socket("127.0.0.1")], first_byte.maker("")
        )
        await server.start()
        await both_are_answered(server)
        await server.stop(grace_s=0)

    uvloop.run(serve_and_ask())


async def test_a_connection_that_says_nothing_does_not_hold_up_the_end(
    connection: test_frames.Connection, server: handler_server.HandlerServer
) -> None:
    reader, _ = connection
    await support.wait_until_async(lambda: server._connections.open)
    async with asyncio.timeout(support.WAIT_S):
        await server.stop(grace_s=60)
    assert await http_calls.ends(reader)


async def test_a_connection_that_says_nothing_for_long_is_closed(
    connection: test_frames.Connection, server: handler_server.HandlerServer
) -> None:
    reader, _ = connection
    await support.wait_until_async(lambda: server._connections.open)
    server._close_silent()
    assert server._connections.open
    server._close_silent()
    assert await http_calls.ends(reader)


async def test_a_connection_that_ends_before_its_first_byte_is_forgotten(
    connection: test_frames.Connection, server: handler_server.HandlerServer
) -> None:
    _, writer = connection
    await support.wait_until_async(lambda: server._connections.open)
    writer.close()
    async with asyncio.timeout(support.WAIT_S):
        await server._connections.all_closed.wait()
