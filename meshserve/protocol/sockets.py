"""Listening sockets of this project's servers."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

KEEP_ALIVE_S = 3600
"""Servers keep idle connections longer than Envoy does.

Envoy must close first: a request that meets a closing connection fails.
"""

STOP_S = 5.0
"""Time that a stopping server leaves to requests under way."""

# asyncio's own default is 100: of more clients that connect at one moment some would wait or fail.
BACKLOG = 2048


def tcp_socket(host: str, port: int = 0) -> socket.socket:
    """Return a bound TCP socket; port 0 takes a free one. Raises OSError if the port is taken."""
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it each small
    # answer waits 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Connections of an earlier server linger for a minute and would keep the port taken.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _bind(listener, (host, port))


def unix_socket(path: str) -> socket.socket:
    """Return a Unix socket bound to `path`; the file of an earlier server is replaced."""
    # A killed process leaves its file behind, and a socket can't be bound to an existing file.
    Path(path).unlink(missing_ok=True)
    return _bind(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path)


def server_sockets(socket_path: str, host: str, secret: str) -> list[socket.socket]:
    """Return a server's sockets: a Unix one and, if `host` is not empty, a TCP one on it.

    Raises ValueError for a host without a secret, which all requests must bring then.
    """
    if not host:
        return [unix_socket(socket_path)]
    if not secret:
        raise ValueError(f"a server on {host} needs a secret: anybody could connect to it")
    return [unix_socket(socket_path), tcp_socket(host)]


def _bind(listener: socket.socket, address: str | tuple[str, int]) -> socket.socket:
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def tcp_port(listeners: Iterable[socket.socket]) -> int:
    """Return the port of the first TCP socket, or 0 without one."""
    tcp = (listener for listener in listeners if listener.family == socket.AF_INET)
    return next((int(listener.getsockname()[1]) for listener in tcp), 0)


def unix_paths(listeners: Iterable[socket.socket]) -> tuple[Path, ...]:
    """Return the files of the Unix sockets."""
    unix = (listener for listener in listeners if listener.family == socket.AF_UNIX)
    return tuple(Path(str(listener.getsockname())) for listener in unix)
