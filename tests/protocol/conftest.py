from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshserve.protocol import handler_server, http_protocol, sockets
from tests.protocol import http_calls


@pytest.fixture
async def handler() -> http_calls.Handler:
    return http_calls.Handler()


@pytest.fixture
async def server(handler: http_calls.Handler) -> AsyncIterator[handler_server.HandlerServer]:
    running = await http_protocol.serve(handler, [sockets.tcp_socket("127.0.0.1")])
    yield running
    await running.stop(grace_s=0)


@pytest.fixture
async def connection(
    server: handler_server.HandlerServer,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    yield reader, writer
    writer.close()
