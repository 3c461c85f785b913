"""A server of one handler, whatever protocol its connections speak."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from meshserve.protocol import sockets

Header = tuple[bytes, bytes]
Answer = tuple[int, tuple[Header, ...], bytes]
"""Status, headers without `content-length`, and body."""
Handler = Callable[[str, bytes, Sequence[Header], bytes], Answer | Awaitable[Answer]]
"""Takes method, path, headers with names in lower case, and body. It must not raise.

The path is percent-encoded as it came, without the query. An answer that is awaited is cancelled
if the client closes the connection.
"""


class OpenConnection(Protocol):
    """What a server asks of its connections."""

    def close_when_idle(self) -> None:
        """Close now if no answer is due, else after it."""

    def close_if_silent(self) -> None:
        """Close unless something came since the last call, or an answer is due."""

    def abort(self) -> None:
        """Drop the connection and the request under way."""


class OpenConnections:
    """The open connections of one server; `all_closed` is set while there are none."""

    def __init__(self) -> None:
        self.open: set[OpenConnection] = set()
        self.all_closed = asyncio.Event()
        self.all_closed.set()

    def add(self, connection: OpenConnection) -> None:
        """Add a connection that was opened."""
        self.open.add(connection)
        self.all_closed.clear()

    def discard(self, connection: OpenConnection) -> None:
        """Remove a connection that was closed."""
        self.open.discard(connection)
        if not self.open:
            self.all_closed.set()


ConnectionMaker = Callable[[Handler, OpenConnections], asyncio.Protocol]


class HandlerServer:
    """A server of one handler. `port` is 0 without a TCP socket."""

    def __init__(
        self, handler: Handler, listeners: Sequence[socket.socket], connect: ConnectionMaker
    ) -> None:
        self.port = sockets.tcp_port(listeners)
        self._handler = handler
        self._make_connection = connect
        self._listeners = listeners
        self._servers: list[asyncio.Server] = []
        self._connections = OpenConnections()
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            self._servers.append(
                await loop.create_server(self._connect, sock=listener, backlog=sockets.BACKLOG)
            )
        self._close_silent()

    def _connect(self) -> asyncio.Protocol:
        return self._make_connection(self._handler, self._connections)

    def _close_silent(self) -> None:
        """Close connections that were silent for a period; cheaper than a timer for each."""
        for connection in tuple(self._connections.open):
            connection.close_if_silent()
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(sockets.KEEP_ALIVE_S, self._close_silent)

    async def stop(self, grace_s: float = sockets.STOP_S) -> None:
        """Close idle connections, leave busy ones `grace_s` seconds, remove the socket files."""
        paths = sockets.unix_paths(self._listeners)
        if self._sweep is not None:
            self._sweep.cancel()
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections.open):
            connection.close_when_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._connections.all_closed.wait()
        for connection in tuple(self._connections.open):
            connection.abort()
        for path in paths:
            path.unlink(missing_ok=True)
