"""What a server knows of its open connections; its life is in `test_http_server_end`."""

from __future__ import annotations

import asyncio

from meshserve.protocol import handler_server
from tests.protocol import http_calls


class SilentConnection:
    def close_when_idle(self) -> None: ...

    def close_if_silent(self) -> None: ...

    def abort(self) -> None: ...


def test_all_are_closed_when_the_last_one_is() -> None:
    connections = handler_server.OpenConnections()
    first, second = SilentConnection(), SilentConnection()
    assert connections.all_closed.is_set()
    connections.add(first)
    connections.add(second)
    connections.discard(first)
    assert not connections.all_closed.is_set()
    connections.discard(second)
    assert connections.all_closed.is_set()


async def test_a_server_without_a_tcp_socket_has_no_port(handler: http_calls.Handler) -> None:
    def connect(*_: object) -> asyncio.Protocol:
        raise AssertionError("nobody connects")

    assert handler_server.HandlerServer(handler, [], connect).port == 0
