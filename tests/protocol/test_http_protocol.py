from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from meshserve import tasks
from meshserve.protocol import http_protocol, sockets


class Handler:
    """Answers with method, path, body and `x-echo`; requests to `/later` once `gate` is open."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes, Sequence[http_protocol.Header], bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.called, self.answered = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.cancelled = asyncio.Semaphore(0)

    def __call__(
        self, method: str, path: bytes, headers: Sequence[http_protocol.Header], body: bytes
    ) -> http_protocol.Answer | Awaitable[http_protocol.Answer]:
        self.requests.append((method, path, headers, body))
        self.called.release()
        echo = dict(headers).get(b"x-echo", b"")
        if path == b"/raises":
            raise RuntimeError("the handler is broken")
        answer = (200, ((b"x-echo", echo),), b"%b %b %b" % (method.encode(), path, body))
        if path == b"/empty":
            return 503, (), b""
        return self._later(answer, path) if path.startswith(b"/later") else answer

    async def _later(
        self, answer: tuple[int, tuple[tuple[bytes, bytes]], bytes], path: bytes
    ) -> Any:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        self.answered.release()
        if path == b"/later/raises":
            raise RuntimeError("the handler is broken")
        return answer


@pytest.fixture
async def handler() -> Handler:
    return Handler()


@pytest.fixture
async def server(handler: Handler) -> AsyncIterator[http_protocol.HttpServer]:
    running = await http_protocol.serve(handler, [sockets.tcp_socket("127.0.0.1")])
    yield running
    await running.stop(grace_s=0)


@pytest.fixture
async def connection(
    server: http_protocol.HttpServer,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    yield reader, writer
    writer.close()


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """Return a request's bytes."""
    length = (b"content-length: %d" % len(body),) if body else ()
    return b"\r\n".join([line + b" HTTP/1.1", b"host: x", *length, *headers, b"", body])


async def answer_of(reader: asyncio.StreamReader) -> Any:
    """Read one answer; return its status line, its headers and its body."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        status, *lines = head[:-4].split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        return status, headers, await reader.readexactly(int(headers[b"content-length"]))


async def ends(reader: asyncio.StreamReader) -> bool:
    """Return whether the server closes the connection without more bytes."""
    async with asyncio.timeout(10):
        return await reader.read() == b""


async def chunks(count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield b"x" * 70_000
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", ["/now", "/later"])
@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 70_000, b"x" * 3_000_000])
async def test_a_request_comes_whole_and_its_answer_goes_out_whole(
    server: http_protocol.HttpServer, handler: Handler, path: str, body: bytes
) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for echo in ("one", "50%d"):
            answer = await client.post(
                f"http://127.0.0.1:{server.port}{path}?q=1", content=body, headers={"x-echo": echo}
            )
            assert (answer.status_code, answer.headers["x-echo"]) == (200, echo)
            assert answer.content == b"POST %b %b" % (path.encode(), body)
    assert handler.requests[0][3] == body


async def test_a_chunked_body_comes_in_one_piece(server: http_protocol.HttpServer) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{server.port}/now", content=chunks(10))
    assert answer.content == b"POST /now " + b"x" * 700_000


async def test_headers_have_lower_case_names(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: Handler
) -> None:
    reader, writer = connection
    writer.write(request(b"GET /now", b"X-Echo: A  B"))
    _, headers, _ = await answer_of(reader)
    assert headers == {b"x-echo": b"A  B", b"content-length": b"9"}
    assert handler.requests[0][2] == [(b"host", b"x"), (b"x-echo", b"A  B")]


async def test_a_head_and_its_body_come_together(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(request(b"GET /now"))
    assert (await reader.read(65536)).endswith(b"\r\n\r\nGET /now ")


async def test_an_empty_answer_has_a_length(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(request(b"GET /empty"))
    status, headers, _ = await answer_of(reader)
    assert (status, headers) == (
        b"HTTP/1.1 503 Service Unavailable",
        {b"content-length": b"0"},
    )


async def test_head_is_answered_without_a_body(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(request(b"HEAD /now") + request(b"GET /now"))
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    assert b"content-length: 10\r\n" in head
    assert (await answer_of(reader))[2] == b"GET /now "


async def test_an_absolute_target_has_its_path(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(request(b"GET http://x/now?q=1") + request(b"GET http://x"))
    assert (await answer_of(reader))[2] == b"GET /now "
    assert (await answer_of(reader))[2] == b"GET / "


@pytest.mark.parametrize(
    "bytes_",
    [
        request(b"GET /now", b"connection: close"),
        b"GET /now HTTP/1.0\r\n\r\n",
        request(b"GET /later", b"connection: close"),
    ],
)
async def test_a_connection_that_is_not_kept_is_closed_after_its_answer(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], bytes_: bytes
) -> None:
    reader, writer = connection
    writer.write(bytes_)
    _, headers, body = await answer_of(reader)
    assert headers[b"connection"] == b"close"
    assert body.startswith(b"GET /")
    assert await ends(reader)


async def test_an_upgrade_that_is_not_offered_is_ignored(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(request(b"GET /now", b"connection: upgrade", b"upgrade: h2c"))
    assert (await answer_of(reader))[2] == b"GET /now "
    assert await ends(reader)


async def test_a_client_that_expects_100_continue_gets_it(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(request(b"POST /now", b"expect: 100-Continue", b"content-length: 3"))
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == http_protocol.CONTINUE
    writer.write(b"abc")
    assert (await answer_of(reader))[2] == b"POST /now abc"


async def test_100_continue_comes_after_the_answer_that_is_due_first(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: Handler
) -> None:
    reader, writer = connection
    handler.gate.clear()
    head = request(b"POST /now", b"expect: 100-continue", b"content-length: 3")
    writer.write(request(b"GET /later") + head)
    await handler.called.acquire()
    handler.gate.set()
    assert (await answer_of(reader))[2] == b"GET /later "
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == http_protocol.CONTINUE


@pytest.mark.parametrize("bytes_", [b"\x16\x03\x01 not HTTP\r\n\r\n", request(b"GET nonsense")])
async def test_garbage_is_answered_with_400(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: Handler, bytes_: bytes
) -> None:
    reader, writer = connection
    writer.write(bytes_)
    status, headers, body = await answer_of(reader)
    assert (status, body) == (b"HTTP/1.1 400 Bad Request", b"Invalid HTTP request received.")
    assert headers[b"connection"] == b"close"
    assert await ends(reader)
    assert handler.requests == []


async def test_garbage_behind_a_request_does_not_disturb_its_answer(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: Handler
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(request(b"GET /later") + b"\x16\x03\x01 not HTTP\r\n\r\n")
    await handler.called.acquire()
    handler.gate.set()
    assert (await answer_of(reader))[2] == b"GET /later "
    assert await ends(reader)


async def test_a_head_has_a_limit(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    line = b"x-long: " + b"x" * 1000 + b"\r\n"
    writer.write(b"GET /now HTTP/1.1\r\n" + line * (http_protocol.HEAD_BYTES_MAX // len(line) + 1))
    assert (await answer_of(reader))[0] == b"HTTP/1.1 431 Request Header Fields Too Large"


async def test_a_body_has_a_limit(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "BODY_BYTES_MAX", 1000)
    reader, writer = connection
    writer.write(request(b"POST /now", body=b"x" * 1000))
    assert (await answer_of(reader))[0] == b"HTTP/1.1 200 OK"
    writer.write(request(b"POST /now", body=b"x" * 1001))
    assert (await answer_of(reader))[0] == b"HTTP/1.1 413 Request Entity Too Large"


async def test_answers_keep_the_order_of_their_requests(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    paths = [b"/now", b"/later", b"/now", b"/now", b"/later", b"/later", b"/now"]
    for number, path in enumerate(paths):
        writer.write(request(b"POST " + path, body=b"%d" % number))
    bodies = [(await answer_of(reader))[2] for _ in paths]
    assert [body.rpartition(b" ")[2] for body in bodies] == [b"%d" % n for n in range(len(paths))]


async def test_requests_of_one_connection_are_handled_one_at_a_time(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: Handler
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(request(b"GET /later") * 3)
    await handler.called.acquire()
    assert len(handler.requests) == 1
    handler.gate.set()
    for _ in range(3):
        await answer_of(reader)


async def test_a_client_that_does_not_read_is_not_answered_without_end(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: Handler
) -> None:
    reader, writer = connection
    body = b"x" * 500_000
    sending = tasks.spawn(
        send_all(writer, [request(b"POST /now", body=body)] * 40), "send all", is_awaited=True
    )
    done, _ = await asyncio.wait([sending], timeout=1.0)
    assert not done
    assert len(handler.requests) < 40
    for _ in range(40):
        assert (await answer_of(reader))[2] == b"POST /now " + body
    await sending


async def send_all(writer: asyncio.StreamWriter, requests: list[bytes]) -> None:
    for bytes_ in requests:
        writer.write(bytes_)
        await writer.drain()


async def test_a_client_that_leaves_in_the_middle_of_a_request_never_asked(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: Handler
) -> None:
    reader, writer = connection
    writer.write(request(b"POST /now", b"content-length: 100") + b"half")
    writer.write_eof()
    assert await ends(reader)
    assert handler.requests == []


async def test_the_request_of_a_client_that_leaves_is_cancelled(
    server: http_protocol.HttpServer, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    handler.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request(b"GET /later"))
    await handler.called.acquire()
    writer.close()
    async with asyncio.timeout(10):
        await handler.cancelled.acquire()
    assert caplog.records == []


async def test_a_request_whose_client_leaves_at_once_is_begun_before_it_is_cancelled(
    server: http_protocol.HttpServer, handler: Handler
) -> None:
    """What a handler returns may hold a lease, which only its own code can end."""
    handler.gate.clear()
    connection = http_protocol.HttpConnection(handler, server._connections)
    connection.connection_made(asyncio.Transport())
    connection.data_received(request(b"GET /later"))
    connection.connection_lost(None)
    async with asyncio.timeout(10):
        await handler.cancelled.acquire()


@pytest.mark.parametrize("path", [b"/raises", b"/later/raises"])
async def test_a_handler_that_raises_loses_its_connection_alone(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: http_protocol.HttpServer,
    path: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader, writer = connection
    with caplog.at_level(logging.ERROR):
        writer.write(request(b"GET " + path))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await answer_of(reader)
    assert "the handler is broken" in caplog.text
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{server.port}/now")).status_code == 200


# The end


async def test_every_socket_is_served_and_nothing_is_left_after_the_end(
    tmp_path: Path, handler: Handler
) -> None:
    path = tmp_path / "app.sock"
    listeners = [sockets.tcp_socket("127.0.0.1"), sockets.unix_socket(str(path))]
    running = await http_protocol.serve(handler, listeners)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request(b"GET /now"))
    assert (await answer_of(reader))[2] == b"GET /now "
    writer.close()
    await running.stop()
    assert not path.exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", running.port)


async def test_an_idle_connection_does_not_hold_up_the_end(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], server: http_protocol.HttpServer
) -> None:
    reader, writer = connection
    writer.write(request(b"GET /now"))
    await answer_of(reader)
    async with asyncio.timeout(10):
        await server.stop(grace_s=60)
    assert await ends(reader)


async def test_a_request_under_way_is_answered_before_the_end(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: http_protocol.HttpServer,
    handler: Handler,
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(request(b"GET /later"))
    await handler.called.acquire()
    stopping = tasks.spawn(server.stop(grace_s=60), "stop", is_awaited=True)
    await asyncio.sleep(0)
    handler.gate.set()
    _, headers, body = await answer_of(reader)
    assert (headers[b"connection"], body) == (b"close", b"GET /later ")
    await stopping


async def test_a_request_that_takes_too_long_does_not_hold_up_the_end(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: http_protocol.HttpServer,
    handler: Handler,
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(request(b"GET /later"))
    await handler.called.acquire()
    await server.stop(grace_s=0.05)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await answer_of(reader)


async def test_a_connection_that_is_silent_for_long_is_closed(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], server: http_protocol.HttpServer
) -> None:
    reader, writer = connection
    writer.write(request(b"GET /now"))
    await answer_of(reader)
    server._close_silent()
    writer.write(request(b"GET /now"))
    await answer_of(reader)
    server._close_silent()
    server._close_silent()
    assert await ends(reader)


def test_it_runs_on_uvloop_too() -> None:
    """Ray's actors have uvloop, whose transports are none of asyncio's classes."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchange())


async def exchange() -> None:
    """Have requests answered at once and later, small and big, pipelined, to the end."""
    server = await http_protocol.serve(Handler(), [sockets.tcp_socket("127.0.0.1")])
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = b"x" * 500_000
    lines = [b"POST /now", b"POST /later", b"POST /later", b"POST /now"] * 5
    sending = tasks.spawn(
        send_all(writer, [request(line, body=body) for line in lines]), "send all", is_awaited=True
    )
    for line in lines:
        assert (await answer_of(reader))[2] == line + b" " + body
    await sending
    writer.write(b"not HTTP")
    assert (await answer_of(reader))[0] == b"HTTP/1.1 400 Bad Request"
    assert await ends(reader)
    writer.close()
    await server.stop()
