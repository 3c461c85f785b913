"""A server behind the gateway in tests: it answers every request with its picture, as JSON.

`python -m tests.gateway.echo SOCKET NAME` runs one as a process of its own, to be killed.

It serves REST and, behind Envoy's bridge, gRPC. A request's header `x-say` makes it answer
otherwise: `grpc-error`, `unavailable` (503), `crash` (500 as plain text), `slow` (after a second),
`infer` (as a model would), `slow-infer`, `hang` (until the caller goes), `big` (20 MB).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from meshserve.protocol import asgi_server, guarded_app, sockets
from meshserve.protocol.pb import inference_pb2 as pb

GRPC_ERROR = [
    (b"x-mesh-grpc-status", b"5"),
    (b"x-mesh-grpc-message", b"no model %C3%A4"),
    (b"x-mesh-grpc-details", b"CAUSBG5vbmU="),
]


@dataclass
class Echo:
    name: str
    seen: list[dict[str, Any]] = field(default_factory=list)
    is_unavailable: bool = False
    abandoned: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/healthz":
            await answer(send, 200, b"ok", [(b"content-type", b"text/plain")])
            return
        body = await read(receive)
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        picture = {
            "by": self.name,
            "path": scope["raw_path"].decode(),
            "headers": headers,
            "bytes": len(body),
            "start": body[:32].hex(),
        }
        self.seen.append(picture)
        await self.say(headers.get("x-say", ""), picture, receive, send)

    async def say(self, what: str, picture: dict[str, Any], receive: Any, send: Any) -> None:
        is_grpc = picture["headers"].get("content-type", "").startswith("application/grpc")
        kind = [
            (b"content-type", b"application/grpc" if is_grpc else b"application/json"),
            (b"x-mesh-secret", b"inside"),
        ]
        if what == "crash":
            await answer(send, 500, b"Internal Server Error", [(b"content-type", b"text/plain")])
        elif what == "unavailable" or self.is_unavailable:
            await answer(
                send, 503, b'{"error": "draining"}', [(b"content-type", b"application/json")]
            )
        elif what == "grpc-error":
            await answer(send, 200, b"", [*kind, *GRPC_ERROR])
        elif what == "big":
            await answer(send, 200, json.dumps({"much": "x" * 20_000_000}).encode(), kind)
        elif what == "hang":
            await self.hang(receive)
        elif what.endswith("infer"):
            await asyncio.sleep(1.0 if what == "slow-infer" else 0)
            await answer(
                send,
                200,
                pb.ModelInferResponse(
                    model_name=picture["headers"]["x-mesh-model"], id=self.name
                ).SerializeToString(),
                kind,
            )
        else:
            await asyncio.sleep(1.0 if what == "slow" else 0)
            await answer(send, 200, json.dumps(picture).encode(), kind)

    async def hang(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.abandoned += 1


async def read(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def answer(send: Any, status: int, body: bytes, headers: Any) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(app: Any, path: str, secret: str = "") -> AsyncIterator[Any]:
    """Serve on a Unix socket until the block ends, behind a secret if there is one."""
    listeners = [sockets.unix_socket(path)]
    running = await asgi_server.serve(guarded_app.guard(app, secret), listeners)
    try:
        yield app
    finally:
        await running.stop()


async def main(path: str, name: str) -> None:
    async with serving(Echo(name), path):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
