"""Serves an ASGI application of the tests as a worker serves: by HTTP/1.1 and by frames.

`python -m tests.gateway.frame_server SOCKET NAME` is an echo in a process of its own, to be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from meshserve.protocol import first_byte, handler_server, sockets
from tests.gateway import echo


class AsgiHandler:
    """Answers whole requests by an ASGI application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(
        self, method: str, path: bytes, headers: Sequence[handler_server.Header], body: bytes
    ) -> handler_server.Answer:
        scope = {"type": "http", "method": method, "path": path.decode(), "raw_path": path}
        scope["headers"] = list(headers)
        sent: list[dict[str, Any]] = []
        asked = iter([{"type": "http.request", "body": body}])

        async def receive() -> dict[str, Any]:
            for message in asked:
                return message
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        answered = [
            (name, value) for name, value in sent[0]["headers"] if name != b"content-length"
        ]
        return sent[0]["status"], tuple(answered), b"".join(part["body"] for part in sent[1:])


@contextlib.asynccontextmanager
async def serving(app: Any, path: str, secret: str = "") -> AsyncIterator[Any]:
    """Serve on a Unix socket until the block ends; requests must bring the secret, if any."""
    listeners = [sockets.unix_socket(path)]
    server = handler_server.HandlerServer(AsgiHandler(app), listeners, first_byte.maker(secret))
    await server.start()
    try:
        yield app
    finally:
        await server.stop(grace_s=0)


async def main(path: str, name: str) -> None:
    async with serving(echo.Echo(name), path):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
