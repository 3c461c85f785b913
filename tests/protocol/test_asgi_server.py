from __future__ import annotations

import asyncio

import httpx
import pytest

from meshserve.protocol import asgi_server, sockets


async def hello(scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def get(url, socket_path=None):
    transport = httpx.AsyncHTTPTransport(uds=socket_path) if socket_path else None
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        return (await client.get(url)).text


async def test_an_app_is_served_on_every_socket_from_the_start(tmp_path):
    path = str(tmp_path / "app.sock")
    served = await asgi_server.serve(
        hello, [sockets.tcp_socket("127.0.0.1"), sockets.unix_socket(path)]
    )
    try:
        assert await get(f"http://127.0.0.1:{served.port}/a") == "/a"
        assert await get("http://there/b", path) == "/b"
    finally:
        await served.stop()


async def test_a_stopped_server_leaves_nothing(tmp_path):
    path = tmp_path / "app.sock"
    served = await asgi_server.serve(
        hello, [sockets.tcp_socket("127.0.0.1"), sockets.unix_socket(str(path))]
    )
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

    served = await asgi_server.serve(slow, [sockets.tcp_socket("127.0.0.1")])
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

    served = await asgi_server.serve(stuck, [sockets.tcp_socket("127.0.0.1")])
    asked = asyncio.ensure_future(get(f"http://127.0.0.1:{served.port}/a"))
    await began.wait()
    await served.stop(grace_s=0.05)
    assert not asked.done()
    asked.cancel()


async def test_without_a_tcp_socket_there_is_no_port(tmp_path):
    served = await asgi_server.serve(hello, [sockets.unix_socket(str(tmp_path / "app.sock"))])
    assert served.port == 0
    await served.stop()
