from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvloop

from meshserve import tasks
from meshserve.protocol import handler_server, http_protocol, sockets
from tests.protocol import http_calls


async def chunks(count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield b"x" * 70_000
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", ["/now", "/later"])
@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 70_000, b"x" * 3_000_000])
async def test_a_request_comes_whole_and_its_answer_goes_out_whole(
    server: handler_server.HandlerServer, handler: http_calls.Handler, path: str, body: bytes
) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for echo in ("one", "50%d"):
            answer = await client.post(
                f"http://127.0.0.1:{server.port}{path}?q=1", content=body, headers={"x-echo": echo}
            )
            assert (answer.status_code, answer.headers["x-echo"]) == (200, echo)
            assert answer.content == b"POST %b %b" % (path.encode(), body)
    assert handler.requests[0][3] == body


async def test_a_chunked_body_comes_in_one_piece(server: handler_server.HandlerServer) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{server.port}/now", content=chunks(10))
    assert answer.content == b"POST /now " + b"x" * 700_000


async def test_a_large_body_is_joined_beside_the_event_loop_and_answers_keep_their_order(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: http_calls.Handler
) -> None:
    reader, writer = connection
    large = b"x" * (8 * http_protocol.LARGE_BYTES)
    writer.write(http_calls.request(b"POST /now", body=large))
    writer.write(http_calls.request(b"GET /now"))
    answers = [await http_calls.answer_of(reader) for _ in range(2)]
    assert [answer[2] for answer in answers] == [b"POST /now " + large, b"GET /now "]
    assert handler.were_tasks[0]


async def test_headers_have_lower_case_names(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: http_calls.Handler
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"GET /now", b"X-Echo: A  B"))
    _, headers, _ = await http_calls.answer_of(reader)
    assert headers == {b"x-echo": b"A  B", b"content-length": b"9"}
    assert handler.requests[0][2] == [(b"host", b"x"), (b"x-echo", b"A  B")]


async def test_a_head_and_its_body_come_together(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"GET /now"))
    assert (await reader.read(65536)).endswith(b"\r\n\r\nGET /now ")


async def test_an_empty_answer_has_a_length(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"GET /empty"))
    status, headers, _ = await http_calls.answer_of(reader)
    assert (status, headers) == (
        b"HTTP/1.1 503 Service Unavailable",
        {b"content-length": b"0"},
    )


async def test_head_is_answered_without_a_body(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"HEAD /now") + http_calls.request(b"GET /now"))
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    assert b"content-length: 10\r\n" in head
    assert (await http_calls.answer_of(reader))[2] == b"GET /now "


async def test_an_absolute_target_has_its_path(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"GET http://x/now?q=1") + http_calls.request(b"GET http://x"))
    assert (await http_calls.answer_of(reader))[2] == b"GET /now "
    assert (await http_calls.answer_of(reader))[2] == b"GET / "


@pytest.mark.parametrize(
    "bytes_",
    [
        http_calls.request(b"GET /now", b"connection: close"),
        b"GET /now HTTP/1.0\r\n\r\n",
        http_calls.request(b"GET /later", b"connection: close"),
    ],
)
async def test_a_connection_that_is_not_kept_is_closed_after_its_answer(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], bytes_: bytes
) -> None:
    reader, writer = connection
    writer.write(bytes_)
    _, headers, body = await http_calls.answer_of(reader)
    assert headers[b"connection"] == b"close"
    assert body.startswith(b"GET /")
    assert await http_calls.ends(reader)


async def test_an_upgrade_that_is_not_offered_is_ignored(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"GET /now", b"connection: upgrade", b"upgrade: h2c"))
    assert (await http_calls.answer_of(reader))[2] == b"GET /now "
    assert await http_calls.ends(reader)


async def test_a_client_that_expects_100_continue_gets_it(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"POST /now", b"expect: 100-Continue", b"content-length: 3"))
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == http_protocol.CONTINUE
    writer.write(b"abc")
    assert (await http_calls.answer_of(reader))[2] == b"POST /now abc"


async def test_100_continue_comes_after_the_answer_that_is_due_first(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: http_calls.Handler
) -> None:
    reader, writer = connection
    handler.gate.clear()
    head = http_calls.request(b"POST /now", b"expect: 100-continue", b"content-length: 3")
    writer.write(http_calls.request(b"GET /later") + head)
    await handler.called.acquire()
    handler.gate.set()
    assert (await http_calls.answer_of(reader))[2] == b"GET /later "
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == http_protocol.CONTINUE


@pytest.mark.parametrize(
    "bytes_", [b"\x16\x03\x01 not HTTP\r\n\r\n", http_calls.request(b"GET nonsense")]
)
async def test_garbage_is_answered_with_400(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    handler: http_calls.Handler,
    bytes_: bytes,
) -> None:
    reader, writer = connection
    writer.write(bytes_)
    status, headers, body = await http_calls.answer_of(reader)
    assert (status, body) == (b"HTTP/1.1 400 Bad Request", b"Invalid HTTP request received.")
    assert headers[b"connection"] == b"close"
    assert await http_calls.ends(reader)
    assert handler.requests == []


async def test_garbage_behind_a_request_does_not_disturb_its_answer(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: http_calls.Handler
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(http_calls.request(b"GET /later") + b"\x16\x03\x01 not HTTP\r\n\r\n")
    await handler.called.acquire()
    handler.gate.set()
    assert (await http_calls.answer_of(reader))[2] == b"GET /later "
    assert await http_calls.ends(reader)


async def test_a_head_has_a_limit(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    line = b"x-long: " + b"x" * 1000 + b"\r\n"
    writer.write(b"GET /now HTTP/1.1\r\n" + line * (http_protocol.HEAD_BYTES_MAX // len(line) + 1))
    assert (await http_calls.answer_of(reader))[
        0
    ] == b"HTTP/1.1 431 Request Header Fields Too Large"


async def test_a_body_has_a_limit(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "BODY_BYTES_MAX", 1000)
    reader, writer = connection
    writer.write(http_calls.request(b"POST /now", body=b"x" * 1000))
    assert (await http_calls.answer_of(reader))[0] == b"HTTP/1.1 200 OK"
    writer.write(http_calls.request(b"POST /now", body=b"x" * 1001))
    assert (await http_calls.answer_of(reader))[0] == b"HTTP/1.1 413 Request Entity Too Large"


async def test_answers_keep_the_order_of_their_requests(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    reader, writer = connection
    paths = [b"/now", b"/later", b"/now", b"/now", b"/later", b"/later", b"/now"]
    for number, path in enumerate(paths):
        writer.write(http_calls.request(b"POST " + path, body=b"%d" % number))
    bodies = [(await http_calls.answer_of(reader))[2] for _ in paths]
    assert [body.rpartition(b" ")[2] for body in bodies] == [b"%d" % n for n in range(len(paths))]


async def test_requests_of_one_connection_are_handled_one_at_a_time(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: http_calls.Handler
) -> None:
    reader, writer = connection
    handler.gate.clear()
    writer.write(http_calls.request(b"GET /later") * 3)
    await handler.called.acquire()
    assert len(handler.requests) == 1
    handler.gate.set()
    for _ in range(3):
        await http_calls.answer_of(reader)


async def test_a_client_that_does_not_read_is_not_answered_without_end(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: http_calls.Handler
) -> None:
    reader, writer = connection
    body = b"x" * 500_000
    sending = tasks.spawn(
        http_calls.send_all(writer, [http_calls.request(b"POST /now", body=body)] * 40),
        "send all",
        is_awaited=True,
    )
    done, _ = await asyncio.wait([sending], timeout=1.0)
    assert not done
    assert len(handler.requests) < 40
    for _ in range(40):
        assert (await http_calls.answer_of(reader))[2] == b"POST /now " + body
    await sending


async def test_a_client_that_leaves_in_the_middle_of_a_request_never_asked(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], handler: http_calls.Handler
) -> None:
    reader, writer = connection
    writer.write(http_calls.request(b"POST /now", b"content-length: 100") + b"half")
    writer.write_eof()
    assert await http_calls.ends(reader)
    assert handler.requests == []


async def test_the_request_of_a_client_that_leaves_is_cancelled(
    server: handler_server.HandlerServer,
    handler: http_calls.Handler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(http_calls.request(b"GET /later"))
    await handler.called.acquire()
    writer.close()
    async with asyncio.timeout(10):
        await handler.cancelled.acquire()
    assert caplog.records == []


async def test_a_request_whose_client_leaves_at_once_is_begun_before_it_is_cancelled(
    server: handler_server.HandlerServer, handler: http_calls.Handler
) -> None:
    """What a handler returns may hold a lease, which only its own code can end."""
    handler.gate.clear()
    connection = http_protocol.HttpConnection(handler, server._connections)
    connection.connection_made(asyncio.Transport())
    connection.data_received(http_calls.request(b"GET /later"))
    connection.connection_lost(None)
    async with asyncio.timeout(10):
        await handler.cancelled.acquire()


@pytest.mark.parametrize("path", [b"/raises", b"/later/raises"])
async def test_a_handler_that_raises_loses_its_connection_alone(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: handler_server.HandlerServer,
    path: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader, writer = connection
    with caplog.at_level(logging.ERROR):
        writer.write(http_calls.request(b"GET " + path))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await http_calls.answer_of(reader)
    assert "the handler is broken" in caplog.text
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{server.port}/now")).status_code == 200


def test_it_runs_on_uvloop_too() -> None:
    """Ray's actors have uvloop, whose transports are none of asyncio's classes."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchange())


async def exchange() -> None:
    """Have requests answered at once and later, small and big, pipelined, to the end."""
    server = await http_protocol.serve(http_calls.Handler(), [sockets.tcp_socket("127.0.0.1")])
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = b"x" * 500_000
    lines = [b"POST /now", b"POST /later", b"POST /later", b"POST /now"] * 5
    sending = tasks.spawn(
        http_calls.send_all(writer, [http_calls.request(line, body=body) for line in lines]),
        "send all",
        is_awaited=True,
    )
    for line in lines:
        assert (await http_calls.answer_of(reader))[2] == line + b" " + body
    await sending
    writer.write(b"not HTTP")
    assert (await http_calls.answer_of(reader))[0] == b"HTTP/1.1 400 Bad Request"
    assert await http_calls.ends(reader)
    writer.close()
    await server.stop()
