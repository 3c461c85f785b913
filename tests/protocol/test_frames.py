"""What comes of frames, whole and in pieces, right and wrong."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from meshserve import tasks
from meshserve.protocol import first_byte, frames, handler_server, http_protocol, sockets
from tests import support
from tests.protocol import http_calls

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SECRET = "s" * 43


@pytest.fixture
async def server(handler: http_calls.Handler) -> AsyncIterator[handler_server.HandlerServer]:
    running = handler_server.HandlerServer(
        handler, [sockets.tcp_socket("127.0.0.1")], first_byte.maker("")
    )
    await running.start()
    yield running
    await running.stop(grace_s=0)


class Frame(NamedTuple):
    status: int
    serial: int
    headers: list[bytes]
    body: bytes


def frame(
    path: bytes,
    body: bytes = b"",
    headers: bytes = b"x-echo\nhi\n",
    serial: int = 7,
) -> bytes:
    """Return a POST request's bytes."""
    block = b"POST\n%b\n%b" % (path, headers)
    return struct.pack("<BBBxIII", 0xF7, 1, 0, serial, len(block), len(body)) + block + body


async def read(reader: asyncio.StreamReader) -> Frame:
    async with asyncio.timeout(support.WAIT_S):
        head = struct.unpack("<BBHIII", await reader.readexactly(16))
        assert head[:2] == (0xF8, 1)
        block = await reader.readexactly(head[4])
        return Frame(head[2], head[3], block.split(b"\n"), await reader.readexactly(head[5]))


async def test_a_frame_is_answered_by_a_frame(
    connection: Connection, handler: http_calls.Handler
) -> None:
    reader, writer = connection
    for serial in range(3):
        writer.write(frame(b"/a?b=c", b"12", serial=serial))
        assert await read(reader) == (200, serial, [b"x-echo", b"hi", b""], b"POST /a 12")
    assert handler.were_tasks == [False] * 3


@pytest.mark.parametrize("size", [1, 7, 15, 16, 40])
async def test_a_frame_may_come_in_pieces(connection: Connection, size: int) -> None:
    reader, writer = connection
    sent = frame(b"/a", b"x" * 100)
    for start in range(0, len(sent), size):
        writer.write(sent[start : start + size])
        await asyncio.sleep(0)
    assert (await read(reader)).body == b"POST /a " + b"x" * 100


@pytest.mark.parametrize("count", [http_protocol.LARGE_BYTES - 200, http_protocol.LARGE_BYTES])
async def test_a_large_body_comes_whole(
    connection: Connection, handler: http_calls.Handler, count: int
) -> None:
    reader, writer = connection
    body = bytes(range(250)) * (count // 250)
    writer.write(frame(b"/a", body))
    assert (await read(reader)).body == b"POST /a " + body
    writer.write(frame(b"/later", body))
    assert (await read(reader)).body == b"POST /later " + body
    assert handler.requests[1][3] == body


async def test_headers_are_read_when_somebody_looks() -> None:
    headers = frames.FrameHeaders(b"a\n1\nb\n\nc\n3=\n", needs_reading=False)
    assert list(headers) == [(b"a", b"1"), (b"b", b""), (b"c", b"3=")]
    assert (len(headers), headers[-1], headers[:1]) == (3, (b"c", b"3="), [(b"a", b"1")])
    assert not frames.FrameHeaders(b"", needs_reading=True)


async def test_the_body_of_a_503_is_a_header(connection: Connection) -> None:
    reader, writer = connection
    writer.write(frame(b"/empty"))
    assert await read(reader) == (503, 7, [b"x-mesh-refusal", b"", b""], b"")


WRONG = {
    "another version": struct.pack("<BBBxIII", 0xF7, 2, 0, 0, 0, 0),
    "too many headers": struct.pack("<BBBxIII", 0xF7, 1, 0, 0, (64 << 10) + 1, 0),
    "too large a body": struct.pack("<BBBxIII", 0xF7, 1, 0, 0, 9, (2 << 30) + 1),
    "no method and no path": struct.pack("<BBBxIII", 0xF7, 1, 0, 0, 0, 0),
    "no path": struct.pack("<BBBxIII", 0xF7, 1, 0, 0, 5, 0) + b"POST\n",
    "two at once": frame(b"/a") * 2,
    "one and a half": frame(b"/a") + frame(b"/a")[:20],
    "another one before the answer": frame(b"/later") + b"",
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_bytes_end_the_connection(
    connection: Connection, handler: http_calls.Handler, name: str
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(WRONG[name])
    if "before" in name:
        await handler.called.acquire()
        writer.write(frame(b"/a"))
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await read(reader)
    if "before" in name:
        await handler.cancelled.acquire()


async def test_the_request_of_a_client_that_leaves_is_cancelled(
    connection: Connection, handler: http_calls.Handler
) -> None:
    _, writer = connection
    handler.gate.clear()
    writer.write(frame(b"/later"))
    await handler.called.acquire()
    writer.close()
    async with asyncio.timeout(support.WAIT_S):
        await handler.cancelled.acquire()


async def test_half_a_request_is_never_run(
    connection: Connection, handler: http_calls.Handler
) -> None:
    reader, writer = connection
    writer.write(frame(b"/a", b"x" * 100)[:-1])
    writer.write_eof()
    assert await http_calls.ends(reader)
    assert handler.requests == []


async def test_a_request_under_way_is_answered_before_the_end(
    connection: Connection, server: handler_server.HandlerServer, handler: http_calls.Handler
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(frame(b"/later"))
    await handler.called.acquire()
    stopping = tasks.spawn(server.stop(grace_s=60), "stop", is_awaited=True)
    await asyncio.sleep(0)
    handler.gate.set()
    assert (await read(reader)).body == b"POST /later "
    assert await http_calls.ends(reader)
    await stopping


async def test_silent_connections_are_closed(
    connection: Connection, server: handler_server.HandlerServer
) -> None:
    reader, writer = connection
    writer.write(frame(b"/a"))
    await read(reader)
    server._close_silent()
    writer.write(frame(b"/a"))
    await read(reader)
    server._close_silent()
    server._close_silent()
    assert await http_calls.ends(reader)


async def test_a_secret_is_asked_for_and_not_passed_on(handler: http_calls.Handler) -> None:
    server = handler_server.HandlerServer(
        handler, [sockets.tcp_socket("127.0.0.1")], first_byte.maker(SECRET)
    )
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(frame(b"/a"))
    assert (await read(reader)).status == 401
    writer.write(frame(b"/a", headers=b"a\nb\nx-mesh-secret\n%b\n" % SECRET.encode()))
    assert (await read(reader)).status == 200
    assert [list(headers) for _, _, headers, _ in handler.requests] == [[(b"a", b"b")]]
    writer.close()
    await server.stop(grace_s=0)
