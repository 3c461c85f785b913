"""Serves an ASGI app on sockets inside an event loop that somebody else runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http import httptools_impl

KEEP_ALIVE_S = 3600
"""Idle connections are Envoy's to close: it must be the first, or a request could meet a closing connection."""

STOP_S = 5.0

JOINED_BYTES_MAX = 64 << 10
"""A bigger body is not copied behind its head."""


class _HeadWithBody:
    """The transport of one answer: its head waits for the body, and both are one system call, and one piece of work for who reads them."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """The first is the head."""
        head, self._head = self._head, b""
        if head is None:
            self._head = data
        elif len(data) <= JOINED_BYTES_MAX:
            self._transport.write(head + data)
        else:
            self._transport.writelines((head, data))

    def close(self) -> None:
        """What waits goes out first."""
        if self._head:
            self._transport.write(self._head)
        self._transport.close()


class _WholeBodies(httptools_impl.HttpToolsProtocol):
    """Hands each body over in one piece, and takes each answer so.

    Given part by part, as uvicorn does, a big body stops and starts the connection at every 64 KB.
    """

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._parts: list[bytes] = []

    def on_headers_complete(self) -> None:
        """All is known but the body."""
        super().on_headers_complete()
        if self.scope["method"] != "HEAD" and not self.expect_100_continue:
            self.cycle.transport = _HeadWithBody(self.transport)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Some of its body has come."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """All of it has come."""
        self.cycle.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)  # type: ignore[assignment]  # it only reads it
        super().on_message_complete()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to whoever runs the loop."""
        yield


class Serving:
    """An app that is being served. `port` is 0 without a TCP socket."""

    def __init__(self, server: uvicorn.Server, task: asyncio.Task[None], sockets: Sequence[socket.socket]) -> None:
        self._server = server
        self._task = task
        self._sockets = sockets
        # Asked now: uvicorn closes the sockets, and a closed one has no name.
        self._socket_paths = [str(each.getsockname()) for each in sockets if each.family == socket.AF_UNIX]
        self.port = next((int(each.getsockname()[1]) for each in sockets if each.family == socket.AF_INET), 0)

    async def stop(self, grace_s: float = STOP_S) -> None:
        """Close idle connections, wait for busy ones at most `grace_s`, and remove the socket files."""
        self._server.should_exit = True
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.shield(self._task)
        except TimeoutError:
            self._server.force_exit = True
            await self._task
        for each in self._sockets:
            each.close()
        for path in self._socket_paths:
            Path(path).unlink(missing_ok=True)  # noqa: ASYNC240 - one short call on a local file


def tcp_socket(host: str, port: int = 0) -> socket.socket:
    """A bound TCP socket; port 0 takes a free one."""
    # Named, for asyncio turns Nagle's algorithm off only where the protocol is: each small answer would wait 40 ms for an acknowledgement.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _bind(bound, (host, port))


def unix_socket(path: str) -> socket.socket:
    """A bound Unix socket, in place of a dead one's file."""
    Path(path).unlink(missing_ok=True)
    return _bind(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path)


def _bind(bound: socket.socket, address: str | tuple[str, int]) -> socket.socket:
    try:
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


async def serve(app: Any, sockets: Sequence[socket.socket], *, has_whole_bodies: bool = False) -> Serving:
    """Serve the ASGI app on bound sockets; returns once connections are accepted.

    `has_whole_bodies`: the app gets each body in one piece, for which somebody before it bounds them.
    """
    config = uvicorn.Config(
        app,
        loop="none",
        http=_WholeBodies if has_whole_bodies else "httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = _Server(config)
    task = asyncio.get_running_loop().create_task(server.serve(sockets=list(sockets)), name="serve")
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.005)
    return Serving(server, task, sockets)
