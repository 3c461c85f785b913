import asyncio
from pathlib import Path

import httpx
import pytest

from meshserve.protocol import serving


async def hello(scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def get(url, socket_path=None):
    transport = httpx.AsyncHTTPTransport(uds=socket_path) if socket_path else None
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        return (await client.get(url)).text


async def test_an_app_is_served_on_every_socket_from_the_start(tmp_path):
    path = str(tmp_path / "app.sock")
    served = await serving.serve(hello, [serving.tcp_socket("127.0.0.1"), serving.unix_socket(path)])
    try:
        assert await get(f"http://127.0.0.1:{served.port}/a") == "/a"
        assert await get("http://there/b", path) == "/b"
    finally:
        await served.stop()


async def test_nothing_is_left_once_it_stopped(tmp_path):
    path = tmp_path / "app.sock"
    served = await serving.serve(hello, [serving.tcp_socket("127.0.0.1"), serving.unix_socket(str(path))])
    await served.stop()
    assert not path.exists()
    with pytest.raises(httpx.ConnectError):
        await get(f"http://127.0.0.1:{served.port}/")


async def test_a_busy_connection_is_answered_before_the_end():
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slow(scope, receive, send):
        began.set()
        await may_end.wait()
        await hello(scope, receive, send)

    served = await serving.serve(slow, [serving.tcp_socket("127.0.0.1")])
    asked = asyncio.ensure_future(get(f"http://127.0.0.1:{served.port}/a"))
    await began.wait()
    stopped = asyncio.ensure_future(served.stop())
    may_end.set()
    assert await asked == "/a"
    await stopped


async def test_a_connection_that_is_busy_for_too_long_does_not_hold_up_the_end():
    began = asyncio.Event()

    async def stuck(_scope, receive, _send):
        began.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    served = await serving.serve(stuck, [serving.tcp_socket("127.0.0.1")])
    asked = asyncio.ensure_future(get(f"http://127.0.0.1:{served.port}/a"))
    await began.wait()
    await served.stop(grace_s=0.05)
    assert not asked.done()
    asked.cancel()


async def test_without_a_tcp_socket_there_is_no_port(tmp_path):
    served = await serving.serve(hello, [serving.unix_socket(str(tmp_path / "app.sock"))])
    assert served.port == 0
    await served.stop()


def test_a_dead_servers_socket_file_is_replaced(tmp_path):
    path = str(tmp_path / "app.sock")
    serving.unix_socket(path).close()
    assert Path(path).exists()
    with serving.unix_socket(path) as bound:
        assert bound.getsockname() == path


def test_a_taken_port_is_an_error():
    with serving.tcp_socket("127.0.0.1") as taken:
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            serving.tcp_socket("127.0.0.1", taken.getsockname()[1])


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


@pytest.mark.parametrize(("body", "told"), [(b"", "[0]"), (b"abc", "[3]"), (b"x" * 3_000_000, "[3000000]"), (in_parts, "[700000]")])
async def test_a_body_comes_in_one_piece(body, told):
    served = await serving.serve(sizes, [serving.tcp_socket("127.0.0.1")], has_whole_bodies=True)
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(2):
                content = body if isinstance(body, bytes) else body(10)
                assert (await client.post(f"http://127.0.0.1:{served.port}/", content=content)).text == told
    finally:
        await served.stop()


async def test_requests_that_follow_each_other_at_once_keep_their_bodies():
    served = await serving.serve(sizes, [serving.tcp_socket("127.0.0.1")], has_whole_bodies=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    for size in (5, 0, 200_000, 1):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (size, b"x" * size))
    answers = b""
    while answers.count(b"[") < 4:
        answers += await reader.read(65536)
    writer.close()
    await served.stop()
    assert [size for size in (b"[5]", b"[0]", b"[200000]", b"[1]") if size not in answers] == []


async def test_a_caller_that_leaves_half_way_is_told_of():
    seen = asyncio.get_running_loop().create_future()

    async def told(_scope, receive, _send):
        seen.set_result((await receive())["type"])

    served = await serving.serve(told, [serving.tcp_socket("127.0.0.1")], has_whole_bodies=True)
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()
    assert await asyncio.wait_for(seen, 10) == "http.disconnect"
    await served.stop()


async def answering(scope, receive, send):
    """Answers as its path says."""
    await receive()
    body = {"/empty": b"", "/big": b"x" * 200_000}.get(scope["path"], b"small")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    if scope["path"] == "/fails":
        raise RuntimeError("it failed between head and body")
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def answers():
    served = await serving.serve(answering, [serving.tcp_socket("127.0.0.1")], has_whole_bodies=True)
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
    assert (await first_part(answers, b"HEAD / HTTP/1.1"))[1].endswith(b"content-length: 5\r\nconnection: close\r\n\r\n")


async def test_an_answer_that_fails_half_way_ends_the_connection(answers):
    head, _, body = (await first_part(answers, b"GET /fails HTTP/1.1"))[1].partition(b"\r\n\r\n")
    assert b"content-length: 5" in head
    assert body == b""


async def test_a_caller_that_waits_to_be_told_to_go_on_is_told(answers):
    reader, writer = await asyncio.open_connection("127.0.0.1", answers)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abc")
    assert (await asyncio.wait_for(reader.readuntil(b"small"), 10)).startswith(b"HTTP/1.1 200 OK")
    writer.close()
