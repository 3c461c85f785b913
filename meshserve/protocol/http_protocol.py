"""A server's connections with whole bodies: each comes in one piece, goes out with its head, and may be answered without a task.

uvicorn gives each request a task, a cycle and an event, which take as long as a tiny model's whole prediction.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uvicorn.protocols.http import httptools_impl

JOINED_BYTES_MAX = 64 << 10
"""A bigger body is not copied behind its head."""

Header = tuple[bytes, bytes]
Answer = tuple[int, tuple[Header, ...], bytes]
"""Status, headers without the body's length, and body."""
AtOnce = Mapping[bytes, Callable[[Sequence[Header], bytes], Answer | None]]
"""By path: headers and body of a POST to its answer, or to nothing where the app shall answer. Never raises."""


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
        else:
            _write(self._transport, head, data)

    def close(self) -> None:
        """What waits goes out first."""
        if self._head:
            self._transport.write(self._head)
        self._transport.close()


def whole_bodies(at_once: AtOnce) -> type[asyncio.Protocol]:
    """The protocol that asks `at_once` before it begins the app's task for a request."""
    return type("WholeBodies", (_WholeBodies,), {"at_once": at_once})


class _WholeBodies(httptools_impl.HttpToolsProtocol):
    """Hands each body over in one piece: given part by part, as uvicorn does, a big one stops and starts the connection at every 64 KB."""

    at_once: AtOnce

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._parts: list[bytes] = []

    def on_headers_complete(self) -> None:
        """All is known but the body, for which a request waits that may be answered at once."""
        self._waits = self.url in self.at_once and self._may_wait()
        if not self._waits:
            self._begin()

    def _may_wait(self) -> bool:
        parser = self.parser
        is_next = self.cycle is None or self.cycle.response_complete
        is_plain = (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
        )
        return is_next and is_plain and not self.expect_100_continue and not self.flow.write_paused

    def _begin(self) -> None:
        """Begin the app's task, as if the head had come only now."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        if self.scope["method"] != "HEAD" and not expects:
            self.cycle.transport = _HeadWithBody(self.transport)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Some of its body has come."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """All of it has come."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if self._waits:
            answer = self.at_once[self.url](self.headers, body)
            if answer is not None:
                status, headers, content = answer
                _write(self.transport, _head(status, headers) % len(content), content)
                self.on_response_complete()
                return
            self._begin()
        self.cycle.body = body  # type: ignore[assignment]  # it only reads it
        super().on_message_complete()


@functools.lru_cache(maxsize=64)
def _head(status: int, headers: tuple[Header, ...]) -> bytes:
    """A format for the length."""
    lines = b"".join(b"%b: %b\r\n" % header for header in headers).replace(b"%", b"%%")
    return httptools_impl.STATUS_LINE[status] + lines + b"content-length: %d\r\n\r\n"


def _write(transport: asyncio.Transport, head: bytes, body: bytes) -> None:
    if len(body) <= JOINED_BYTES_MAX:
        transport.write(head + body)
    else:
        transport.writelines((head, body))
