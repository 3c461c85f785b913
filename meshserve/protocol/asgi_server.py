"""Serves an ASGI app on sockets inside an event loop that somebody else runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from meshserve import tasks
from meshserve.protocol import http_protocol

KEEP_ALIVE_S = 3600
"""Idle connections are Envoy's to close: it must be the first, or a request could meet a closing connection."""

STOP_S = 5.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to whoever runs the loop."""
        yield


class RunningServer:
    """An app that is being served. `port` is 0 without a TCP socket."""

    def __init__(
        self, server: uvicorn.Server, task: asyncio.Task[None], sockets: Sequence[socket.socket]
    ) -> None:
        self._server = server
        self._task = task
        self._sockets = sockets
        # Asked now: uvicorn closes the sockets, and a closed one has no name.
        self._socket_paths = [
            str(each.getsockname()) for each in sockets if each.family == socket.AF_UNIX
        ]
        self.port = next(
            (int(each.getsockname()[1]) for each in sockets if each.family == socket.AF_INET), 0
        )

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


async def serve(
    app: Any, sockets: Sequence[socket.socket], *, at_once: http_protocol.AtOnce | None = None
) -> RunningServer:
    """Serve the ASGI app on bound sockets; returns once connections are accepted.

    `at_once` is asked first, and the app gets what it does not answer. Then each body comes in one piece: somebody before must bound them.
    """
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools" if at_once is None else http_protocol.whole_bodies(at_once),
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
    task = tasks.spawn(server.serve(sockets=list(sockets)), "serve", is_awaited=True)
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.005)
    return RunningServer(server, task, sockets)
