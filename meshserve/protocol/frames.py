"""Frames between Envoy and a worker: a request or an answer as one piece, without HTTP.

Both directions have a head of 16 bytes, a block of headers and a body; `gateway/native/frames.h`
describes them, and is the other end. A connection carries one request at a time.
"""

from __future__ import annotations

import asyncio
import functools
import struct
from collections.abc import Awaitable, Iterator, Sequence
from typing import NamedTuple, cast, overload

from meshserve import tasks
from meshserve.protocol import guarded_connection, handler_server, http_protocol, mesh_secret

MAGIC = 0xF7
"""The first byte of a request, which begins no HTTP."""

ANSWER_MAGIC = 0xF8
VERSION = 1
HEADERS_COUNT = 2
"""The flag of a request whose headers have a deadline, name a model, or tell of a second attempt.

The other flag, 1, says that the body is one gRPC message, which the path says too.
"""

REQUEST = struct.Struct("<BBBxIII")
ANSWER = struct.Struct("<BBHIII")
HEAD_BYTES = REQUEST.size
UNAVAILABLE = 503
REFUSAL_HEADER = b"x-mesh-refusal"
"""The body of an answer with status 503, on one line.

Envoy may send such a request to another worker, and must have the whole answer to decide it.
"""


class FrameRefused(Exception):
    """Bytes came that are no frame of this version, or one above the limits."""


class FrameHeaders(Sequence[http_protocol.Header]):
    """The headers of a request, read when somebody looks at them; hardly any request needs them."""

    __slots__ = ("_block", "_headers", "needs_reading")

    def __init__(self, block: bytes, *, needs_reading: bool) -> None:
        """`needs_reading`: they have what changes how the request is answered."""
        self._block = block
        self._headers: list[http_protocol.Header] | None = None
        self.needs_reading = needs_reading

    def _read(self) -> list[http_protocol.Header]:
        if self._headers is None:
            lines = iter(self._block.split(b"\n"))
            # The block's last line is empty: what would be its value is not there.
            self._headers = list(zip(lines, lines, strict=False))
        return self._headers

    def __len__(self) -> int:
        return len(self._read())

    def __iter__(self) -> Iterator[http_protocol.Header]:
        return iter(self._read())

    @overload
    def __getitem__(self, index: int) -> http_protocol.Header: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[http_protocol.Header]: ...
    def __getitem__(
        self, index: int | slice
    ) -> http_protocol.Header | Sequence[http_protocol.Header]:
        return self._read()[index]


class _Head(NamedTuple):
    flags: int
    serial: int
    body_start: int
    size_bytes: int  # of the whole frame


class FrameConnection(asyncio.Protocol):
    """One connection that carries frames. Wrong bytes end it: nobody can tell what follows them."""

    def __init__(
        self,
        handler: http_protocol.Handler,
        connections: handler_server.OpenConnections,
        secret: bytes = b"",
    ) -> None:
        """With a `secret` each request must bring it, which the handler does not see."""
        self._handler = handler
        self._connections = connections
        self._secret = secret
        self._transport: asyncio.Transport
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._head: _Head | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._was_heard = True

    # Reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection's transport (asyncio)."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Answer the request in these bytes, or keep them until its rest is here (asyncio)."""
        self._was_heard = True
        try:
            if self._task is None and not self._parts and len(data) >= HEAD_BYTES:
                # Nearly all frames come whole. What is here already needs no limits.
                magic, version, flags, serial, block_bytes, body_bytes = REQUEST.unpack_from(data)
                body_start = HEAD_BYTES + block_bytes
                is_whole = body_start + body_bytes == len(data)
                if is_whole and magic == MAGIC and version == VERSION:
                    self._answer(flags, serial, data[HEAD_BYTES:body_start], data[body_start:])
                    return
            self._keep(data)
        except FrameRefused:
            self._transport.abort()

    def _keep(self, data: bytes) -> None:
        """Keep a part of a frame. Raises FrameRefused."""
        if self._task is not None:
            raise FrameRefused("bytes came before the answer had gone")
        self._parts.append(data)
        self._size_bytes += len(data)
        if self._head is None:
            if self._size_bytes < HEAD_BYTES:
                return
            self._head = _read_head(b"".join(self._parts))
        head = self._head
        if self._size_bytes < head.size_bytes:
            return
        if self._size_bytes > head.size_bytes:
            raise FrameRefused("two requests came at once")
        parts, self._parts, self._size_bytes, self._head = self._parts, [], 0, None
        if head.size_bytes < http_protocol.LARGE_BYTES:
            self._answer(head.flags, head.serial, *_joined(head, parts))
        else:
            self._task = tasks.spawn(self._join_and_answer(head, parts), "request")

    # Answering

    def _answer(self, flags: int, serial: int, block: bytes, body: bytes) -> None:
        """Answer a request, at once or by a task. Raises FrameRefused."""
        outcome = self._handle(flags, block, body)
        if isinstance(outcome, tuple):
            self._write(serial, outcome)
        else:
            self._task = tasks.spawn(self._answer_later(serial, outcome), "request")

    def _handle(
        self, flags: int, block: bytes, body: bytes
    ) -> http_protocol.Answer | Awaitable[http_protocol.Answer]:
        """Return what the handler returns. Raises FrameRefused."""
        lines = block.split(b"\n", 2)
        if len(lines) < len(("method", "path", "headers")):
            raise FrameRefused("a request without a method and a path")
        name, target, rest = lines
        headers: Sequence[http_protocol.Header] = FrameHeaders(
            rest, needs_reading=flags & HEADERS_COUNT != 0
        )
        if self._secret:
            known = mesh_secret.take(self._secret, list(headers))
            if known is None:
                return guarded_connection.REFUSED
            headers = known
        path = target.partition(b"?")[0] if b"?" in target else target
        return self._handler(_method(name), path, headers, body)

    async def _join_and_answer(self, head: _Head, parts: list[bytes]) -> None:
        """Answer a large request, which is joined in a thread: it would hold up all others."""
        block, body = await asyncio.to_thread(_joined, head, parts)
        parts.clear()
        try:
            outcome = self._handle(head.flags, block, body)
        except FrameRefused:
            self._transport.abort()
            return
        # The handler holds it for as long as it is needed.
        del body
        if isinstance(outcome, tuple):
            self._finish(head.serial, outcome)
        else:
            await self._answer_later(head.serial, outcome)

    async def _answer_later(self, serial: int, outcome: Awaitable[http_protocol.Answer]) -> None:
        try:
            answer = await outcome
        except BaseException:
            # Without an answer Envoy would wait for ever.
            self._transport.abort()
            raise
        self._finish(serial, answer)

    def _finish(self, serial: int, answer: http_protocol.Answer) -> None:
        self._task = None
        self._write(serial, answer)

    def _write(self, serial: int, answer: http_protocol.Answer) -> None:
        if self._transport.is_closing():
            return
        status, headers, body = answer
        if status == UNAVAILABLE:
            headers, body = (*headers, (REFUSAL_HEADER, body.replace(b"\n", b" "))), b""
        block = _block(headers)
        head = ANSWER.pack(ANSWER_MAGIC, VERSION, status, serial, len(block), len(body)) + block
        if len(body) <= http_protocol.JOINED_BYTES_MAX:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        if self._is_stopping:
            self._transport.close()

    # The end

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio's signature
        """Forget the connection (asyncio), and cancel the request under way."""
        self._connections.discard(self)
        if self._task is not None:
            # Cancelled later: a task that is cancelled before its first step never awaits its
            # answer, which may hold a lease. The first step is scheduled already.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def close_when_idle(self) -> None:
        """Close now if no answer is due, else after it."""
        self._is_stopping = True
        if self._task is None and not self._parts:
            self._transport.close()

    def close_if_silent(self) -> None:
        """Close unless something came since the last call, or an answer is due."""
        if not self._was_heard and self._task is None:
            self._transport.close()
        self._was_heard = False

    def abort(self) -> None:
        """Drop the connection and the request under way."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()


def _read_head(data: bytes) -> _Head:
    """Return the head of a request's frame. Raises FrameRefused."""
    magic, version, flags, serial, block_bytes, body_bytes = REQUEST.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise FrameRefused(f"these bytes are no frame of version {VERSION}")
    if block_bytes > http_protocol.HEAD_BYTES_MAX or body_bytes > http_protocol.BODY_BYTES_MAX:
        raise FrameRefused("the frame is larger than any request")
    body_start = HEAD_BYTES + block_bytes
    return _Head(flags, serial, body_start, body_start + body_bytes)


def _joined(head: _Head, parts: list[bytes]) -> tuple[bytes, bytes]:
    """Return the block and the body of a frame that came in these parts."""
    front, used = b"", 0
    while len(front) < head.body_start:
        front += parts[used]
        used += 1
    body = b"".join((front[head.body_start :], *parts[used:]))
    return front[HEAD_BYTES : head.body_start], body


@functools.lru_cache(maxsize=16)
def _method(name: bytes) -> str:
    return name.decode("latin-1")


# A server sends few different blocks: most are of an answer without an error.
@functools.lru_cache(maxsize=64)
def _block(headers: tuple[http_protocol.Header, ...]) -> bytes:
    return b"".join(b"%b\n%b\n" % header for header in headers)
