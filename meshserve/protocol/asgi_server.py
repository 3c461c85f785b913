"""Serve an ASGI app on sockets inside a running event loop, by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence

import uvicorn
from starlette import types

from meshserve import tasks
from meshserve.protocol import sockets


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program that runs the event loop."""
        yield


class RunningServer:
    """An app that is being served. `port` is 0 without a TCP socket."""

    def __init__(
        self,
        server: uvicorn.Server,
        task: asyncio.Task[None],
        listeners: Sequence[socket.socket],
    ) -> None:
        self._server = server
        self._task = task
        self._listeners = listeners
        # uvicorn closes the sockets when it stops, and a closed socket has no name.
        self._paths = sockets.unix_paths(listeners)
        self.port = sockets.tcp_port(listeners)

    async def stop(self, grace_s: float = sockets.STOP_S) -> None:
        """Close idle connections, leave busy ones `grace_s` seconds, remove the socket files."""
        self._server.should_exit = True
        try:
            async with asyncio.timeout(grace_s):
                # Shielded: after the time-out the server itself must still close what is open.
                await asyncio.shield(self._task)
        except TimeoutError:
            self._server.force_exit = True
            await self._task
        for listener in self._listeners:
            listener.close()
        for path in self._paths:
            path.unlink(missing_ok=True)


async def serve(app: types.ASGIApp, listeners: Sequence[socket.socket]) -> RunningServer:
    """Serve the ASGI app on bound sockets; return once connections are accepted."""
    config = uvicorn.Config(
        app,
        # Said, because uvicorn takes a bound method for an app of ASGI 2, and answers 500.
        interface="asgi3",
        # The event loop runs already, and uvicorn must not make another.
        loop="none",
        http="httptools",
        # No app here speaks WebSocket, nor takes ASGI's lifespan events.
        ws="none",
        lifespan="off",
        # By its own configuration uvicorn writes to standard error, not to this process's log.
        log_config=None,
        access_log=False,
        # Envoy writes both of these headers itself.
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=sockets.BACKLOG,
        timeout_keep_alive=sockets.KEEP_ALIVE_S,
    )
    server = _Server(config)
    task = tasks.spawn(server.serve(sockets=list(listeners)), "serve", is_awaited=True)
    # uvicorn gives no event for it.
    while not server.started:
        # Raises what has ended the server; without it this would wait for ever.
        if task.done():
            await task
        await asyncio.sleep(0.005)
    return RunningServer(server, task, listeners)
