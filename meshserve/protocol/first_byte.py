"""Connections that speak HTTP or frames: their first byte tells which."""

from __future__ import annotations

import asyncio
import functools
from typing import Protocol, cast

from meshserve.protocol import frames, guarded_connection, handler_server


class _Speaker(Protocol):
    """What takes a connection over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def data_received(self, data: bytes) -> None: ...


class FirstByteConnection(asyncio.Protocol):
    """A connection until its first byte comes; then another protocol has it, and this is gone."""

    def __init__(
        self,
        secret: str,
        handler: handler_server.Handler,
        connections: handler_server.OpenConnections,
    ) -> None:
        self._secret = secret
        self._handler = handler
        self._connections = connections
        self._transport: asyncio.Transport
        self._is_old = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection's transport (asyncio)."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Hand the connection over with its first bytes (asyncio)."""
        speaker = self._speaker(data[0])
        self._transport.set_protocol(cast("asyncio.Protocol", speaker))
        speaker.connection_made(self._transport)
        # After the other was added: a stopping server may wait until there is none.
        self._connections.discard(self)
        speaker.data_received(data)

    def _speaker(self, first_byte: int) -> _Speaker:
        if first_byte == frames.MAGIC:
            secret = self._secret.encode()
            return frames.FrameConnection(self._handler, self._connections, secret)
        connect = guarded_connection.maker(self._secret)
        return cast("_Speaker", connect(self._handler, self._connections))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio's signature
        """Forget the connection (asyncio)."""
        self._connections.discard(self)

    def close_when_idle(self) -> None:
        """Close: nothing was asked yet."""
        self._transport.close()

    def close_if_silent(self) -> None:
        """Close unless the connection is new."""
        if self._is_old:
            self._transport.close()
        self._is_old = True

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()


def maker(secret: str) -> handler_server.ConnectionMaker:
    """Return what makes a server's connections, which ask for the secret if there is one."""
    return functools.partial(FirstByteConnection, secret)
