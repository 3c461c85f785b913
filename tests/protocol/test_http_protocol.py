from __future__ import annotations

import asyncio

import httpx
import pytest

from meshserve.protocol import asgi_server


async def sizes(_scope, receive, send):
    """Answers with the sizes of the parts in which the body came."""
    parts = [await receive()]
    while parts[-1].get("more_body"):
        parts.append(await receive())
    told = [len(each["body"]) if each["type"] == "http.request" else each["type"] for each in parts]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(told).encode()})


async def in_parts(count):
    for _ in range(count):
        yield b"x" * 70_000
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"", "[0]"), (b"abc", "[3]"), (b"x" * 3_000_000, "[3000000]"), (in_parts, "[700000]")],
)
async def test_a_body_comes_in_one_piece(body, told):
    served = await asgi_server.serve(sizes, [asgi_server.tcp_socket("127.0.0.1")], at_once={})
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(2):
                content = body if isinstance(body, bytes) else body(10)
                assert (
                    await client.post(f"http://127.0.0.1:{served.port}/", content=content)
                ).text == told
    finally:
        await served.stop()


async def test_requests_that_follow_each_other_at_once_keep_their_bodies():
    served = await asgi_server.serve(sizes, [asgi_server.tcp_socket("127.0.0.1")], at_once={})
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    for size in (5, 0, 200_000, 1):
        writer.write(
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (size, b"x" * size)
        )
    answers = b""
    while answers.count(b"[") < 4:
        answers += await reader.read(65536)
    writer.close()
    await served.stop()
    assert [size for size in (b"[5]", b"[0]", b"[200000]", b"[1]") if size not in answers] == []


async def test_a_caller_that_leaves_in_the_middle_of_what_may_be_answered_at_once_never_asked():
    asked = []

    async def app(scope, _receive, _send):
        asked.append(scope["path"])

    served = await asgi_server.serve(
        app,
        [asgi_server.tcp_socket("127.0.0.1")],
        at_once={b"/now": lambda *_: asked.append("at once")},
    )
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST /now HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await served.stop()
    assert asked == []


async def test_a_caller_that_leaves_half_way_is_told_of():
    seen = asyncio.get_running_loop().create_future()

    async def told(_scope, receive, _send):
        seen.set_result((await receive())["type"])

    served = await asgi_server.serve(told, [asgi_server.tcp_socket("127.0.0.1")], at_once={})
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()
    assert await asyncio.wait_for(seen, 10) == "http.disconnect"
    await served.stop()


async def answering(scope, receive, send):
    """Answers as its path says."""
    await receive()
    body = {"/empty": b"", "/big": b"x" * 200_000}.get(scope["path"], b"small")
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % len(body))],
        }
    )
    if scope["path"] == "/fails":
        raise RuntimeError("it failed between head and body")
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def answers():
    served = await asgi_server.serve(answering, [asgi_server.tcp_socket("127.0.0.1")], at_once={})
    yield served.port
    await served.stop()


def echo(headers, body):
    """Answers with the body and a header's value."""
    return 200, ((b"x-told", dict(headers).get(b"x-told", b"")),), body


AT_ONCE = {b"/now": echo, b"/now/empty": lambda *_: (503, (), b""), b"/later": lambda *_: None}


@pytest.fixture
async def echoes():
    served = await asgi_server.serve(
        answering, [asgi_server.tcp_socket("127.0.0.1")], at_once=AT_ONCE
    )
    yield served.port
    await served.stop()


async def first_part(port, head):
    """What the first read of an answer gives, and what comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"\r\nhost: x\r\nconnection: close\r\n\r\n")
    first = await reader.read(65536)
    rest = await reader.read()
    writer.close()
    return first, first + rest


async def test_a_head_and_its_body_come_together(answers):
    first, whole = await first_part(answers, b"GET / HTTP/1.1")
    assert first == whole
    assert whole.endswith(b"\r\n\r\nsmall")


@pytest.mark.parametrize(("path", "size"), [(b"/empty", 0), (b"/big", 200_000)])
async def test_every_body_follows_its_head(answers, path, size):
    head, _, body = (await first_part(answers, b"GET %s HTTP/1.1" % path))[1].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(body) == size


async def test_a_head_that_is_asked_for_alone_comes_alone(answers):
    assert (await first_part(answers, b"HEAD / HTTP/1.1"))[1].endswith(
        b"content-length: 5\r\nconnection: close\r\n\r\n"
    )


async def test_an_answer_that_fails_half_way_ends_the_connection(answers):
    head, _, body = (await first_part(answers, b"GET /fails HTTP/1.1"))[1].partition(b"\r\n\r\n")
    assert b"content-length: 5" in head
    assert body == b""


async def test_a_caller_that_waits_to_be_told_to_go_on_is_told(answers):
    reader, writer = await asyncio.open_connection("127.0.0.1", answers)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    assert (
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        == b"HTTP/1.1 100 Continue\r\n\r\n"
    )
    writer.write(b"abc")
    assert (await asyncio.wait_for(reader.readuntil(b"small"), 10)).startswith(b"HTTP/1.1 200 OK")
    writer.close()


@pytest.mark.parametrize("size", [0, 5, 70_000, 3_000_000])
async def test_what_can_be_answered_at_once_never_reaches_the_app(echoes, size):
    async with httpx.AsyncClient(trust_env=False) as client:
        for told in ("one", "50%d"):
            answer = await client.post(
                f"http://127.0.0.1:{echoes}/now", content=b"x" * size, headers={"x-told": told}
            )
            assert (answer.status_code, answer.headers["x-told"], answer.content) == (
                200,
                told,
                b"x" * size,
            )
        answer = await client.post(f"http://127.0.0.1:{echoes}/now/empty", content=b"x")
        assert (answer.status_code, answer.headers["content-length"]) == (503, "0")


@pytest.mark.parametrize(
    "request_line_and_headers",
    [
        b"GET /now HTTP/1.1",
        b"POST /now HTTP/1.0",
        b"POST /now HTTP/1.1\r\nconnection: close",
        b"POST /now HTTP/1.1\r\nexpect: 100-continue",
        b"POST /later HTTP/1.1",
        b"POST /now?x=1 HTTP/1.1",
    ],
)
async def test_all_else_is_the_apps(echoes, request_line_and_headers):
    reader, writer = await asyncio.open_connection("127.0.0.1", echoes)
    writer.write(request_line_and_headers + b"\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
    answer = await asyncio.wait_for(reader.readuntil(b"small"), 10)
    assert answer.endswith(b"\r\n\r\nsmall")
    writer.close()


async def mirror(_scope, receive, send):
    """Answers with the body, after a while."""
    body = (await receive())["body"]
    await asyncio.sleep(0.01)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def test_answers_keep_the_order_of_their_requests():
    served = await asgi_server.serve(mirror, [asgi_server.tcp_socket("127.0.0.1")], at_once=AT_ONCE)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    paths = [b"/now", b"/later", b"/now", b"/now", b"/later", b"/later", b"/now"]
    for number, path in enumerate(paths):
        writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n%d" % (path, number))
    bodies = []
    for _ in paths:
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        bodies.append(await reader.readexactly(1))
    assert b"".join(bodies) == b"0123456"
    writer.close()
    await served.stop()


async def test_a_body_in_parts_is_answered_once_it_is_whole(echoes):
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (
            await client.post(f"http://127.0.0.1:{echoes}/now", content=in_parts(10))
        ).content == b"x" * 700_000


async def test_a_client_that_does_not_read_is_not_answered_without_end(echoes):
    """What it does not take waits in its connection, and what comes then is not answered before it is taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", echoes)
    body = b"x" * 500_000
    request = b"POST /now HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    sending = asyncio.ensure_future(send_all(writer, [request] * 40))
    done, _ = await asyncio.wait([sending], timeout=1.0)
    assert not done
    for _ in range(40):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        await reader.readexactly(5 if b"content-length: 5\r\n" in head else len(body))
    await sending
    writer.close()


async def send_all(writer, requests):
    for each in requests:
        writer.write(each)
        await writer.drain()


async def test_a_connection_that_is_idle_after_an_answer_at_once_does_not_hold_up_the_end():
    served = await asgi_server.serve(
        answering, [asgi_server.tcp_socket("127.0.0.1")], at_once=AT_ONCE
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST /now HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
    await asyncio.wait_for(reader.readuntil(b"abc"), 10)
    await asyncio.wait_for(served.stop(grace_s=60), 10)
    assert await reader.read() == b""
    writer.close()
