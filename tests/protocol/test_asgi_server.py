from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from meshserve import tasks
from meshserve.protocol import asgi_server, sockets


async def hello(scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def get(url: str, socket_path: str | None = None) -> str:
    transport = httpx.AsyncHTTPTransport(uds=socket_path) if socket_path else None
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        return (await client.get(url)).text


async def test_an_app_is_served_on_every_socket_from_the_start(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    served = await asgi_server.serve(
        hello, [sockets.tcp_socket("127.0.0.1"), sockets.unix_socket(path)]
    )
    try:
        assert await get(f"http://127.0.0.1:{served.port}/a") == "/a"
        assert await get("http://there/b", path) == "/b"
    finally:
        await served.stop()


class Greeter:
    """An app that is a method of an object."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)


async def test_an_app_may_be_a_method() -> None:
    served = await asgi_server.serve(Greeter().app, [sockets.tcp_socket("127.0.0.1")])
    try:
        assert await get(f"http://127.0.0.1:{served.port}/a") == "/a"
    finally:
        await served.stop()


async def test_a_stopped_server_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    served = await asgi_server.serve(
        hello, [sockets.tcp_socket("127.0.0.1"), sockets.unix_socket(str(path))]
    )
    await served.stop()
    assert not path.exists()
    with pytest.raises(httpx.ConnectError):
        await get(f"http://127.0.0.1:{served.port}/")


async def test_a_busy_connection_is_answered_before_the_end() -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        await may_end.wait()
        await hello(scope, receive, send)

    served = await asgi_server.serve(slow, [sockets.tcp_socket("127.0.0.1")])
    asked = tasks.spawn(get(f"http://127.0.0.1:{served.port}/a"), "get", is_awaited=True)
    await began.wait()
    stopped = tasks.spawn(served.stop(), "stop", is_awaited=True)
    may_end.set()
    assert await asked == "/a"
    await stopped


async def test_a_connection_that_is_busy_for_too_long_does_not_hold_up_the_end() -> None:
    began = asyncio.Event()

    async def stuck(_scope: Scope, receive: Receive, _send: Send) -> None:
        began.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    served = await asgi_server.serve(stuck, [sockets.tcp_socket("127.0.0.1")])
    asked = tasks.spawn(get(f"http://127.0.0.1:{served.port}/a"), "get", is_awaited=True)
    await began.wait()
    await served.stop(grace_s=0.05)
    assert not asked.done()
    asked.cancel()


async def test_without_a_tcp_socket_there_is_no_port(tmp_path: Path) -> None:
    served = await asgi_server.serve(hello, [sockets.unix_socket(str(tmp_path / "app.sock"))])
    assert served.port == 0
    await served.stop()
