"""What a server with a secret answers to those who have it, and to those who don't."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshserve.protocol import guarded_connection, handler_server, http_protocol, sockets
from tests.protocol import http_calls

SECRET = "s" * 43
RIGHT = b"X-Mesh-Secret: " + SECRET.encode()
UNAUTHORISED = b"HTTP/1.1 401 Unauthorized"


@pytest.fixture
async def server(handler: http_calls.Handler) -> AsyncIterator[handler_server.HandlerServer]:
    running = await http_protocol.serve(
        handler, [sockets.tcp_socket("127.0.0.1")], guarded_connection.maker(SECRET)
    )
    yield running
    await running.stop(grace_s=0)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def test_requests_with_the_secret_are_answered_and_the_handler_does_not_see_it(
    connection: Connection, handler: http_calls.Handler
) -> None:
    reader, writer = connection
    for number in range(2):
        writer.write(http_calls.request(b"POST /%d" % number, RIGHT, b"x-a: b", body=b"12"))
        status, _, body = await http_calls.answer_of(reader)
        assert (status, body) == (b"HTTP/1.1 200 OK", b"POST /%d 12" % number)
    assert [headers for _, _, headers, _ in handler.requests] == [
        [(b"host", b"x"), (b"content-length", b"2"), (b"x-a", b"b")]
    ] * 2


@pytest.mark.parametrize("header", [b"x-a: b", RIGHT[:-1], RIGHT + b"s", b"x-mesh-secret:"])
@pytest.mark.parametrize("path", [b"/now", b"/metrics", b"/healthz"])
async def test_a_request_without_the_secret_is_refused_and_the_connection_closed(
    connection: Connection, handler: http_calls.Handler, header: bytes, path: bytes
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"GET " + path, header))
    status, headers, _ = await http_calls.answer_of(reader)
    assert (status, headers[b"connection"]) == (UNAUTHORISED, b"close")
    assert await http_calls.ends(reader)
    assert handler.requests == []


async def test_a_body_without_the_secret_is_not_waited_for(
    connection: Connection, handler: http_calls.Handler
) -> None:
    reader, writer = connection
    writer.write(b"POST /now HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000000\r\n\r\n")
    status, _, _ = await http_calls.answer_of(reader)
    assert status == UNAUTHORISED
    assert await http_calls.ends(reader)
    assert handler.requests == []


async def test_each_request_of_a_connection_needs_the_secret(
    connection: Connection, handler: http_calls.Handler
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"GET /first", RIGHT) + http_calls.request(b"GET /second"))
    status, _, body = await http_calls.answer_of(reader)
    assert (status, body) == (b"HTTP/1.1 200 OK", b"GET /first ")
    status, _, _ = await http_calls.answer_of(reader)
    assert status == UNAUTHORISED
    assert await http_calls.ends(reader)
    assert [path for _, path, _, _ in handler.requests] == [b"/first"]


async def test_trailers_do_not_bring_the_secret(
    connection: Connection, handler: http_calls.Handler
) -> None:
    reader, writer = connection
    head = b"POST /now HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head + b"2\r\n12\r\n0\r\n" + RIGHT + b"\r\n\r\n")
    status, _, _ = await http_calls.answer_of(reader)
    assert status == UNAUTHORISED
    assert handler.requests == []


def test_without_a_secret_connections_are_the_usual_ones() -> None:
    assert guarded_connection.maker("") is http_protocol.HttpConnection
