"""An HTTP/1.1 server that calls one handler with whole requests (RFC 9112, parsed by llhttp).

An ASGI server creates a task, a cycle and an event for each request, which take as long as the
whole prediction of a tiny model. This server writes an answer that the handler returns as soon as
the request is read, and creates a task only if the handler must wait.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import http
import socket
from collections.abc import Awaitable, Sequence
from typing import NamedTuple, cast

import httptools

from meshserve import tasks
from meshserve.protocol import handler_server

Header = handler_server.Header
Answer = handler_server.Answer
Handler = handler_server.Handler

HEAD_BYTES_MAX = 64 << 10
"""Envoy's own limit for a request's headers is 60 KiB."""

BODY_BYTES_MAX = 2 << 30
"""protobuf's limit for a message. The gateway's own limit is lower."""

JOINED_BYTES_MAX = 64 << 10
"""Up to this size a body is copied behind its head, so that one write sends both."""

LARGE_BYTES = 8 << 20
"""From this size on a body is joined in a thread, and `bytes.join` lets other threads run."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE: Header = (b"connection", b"close")
TEXT: tuple[Header, ...] = ((b"content-type", b"text/plain; charset=utf-8"),)
INVALID: Answer = (400, TEXT, b"Invalid HTTP request received.")


class _Request(NamedTuple):
    method: str
    path: bytes
    headers: Sequence[Header]
    body: bytes | list[bytes]  # a list is still to be joined
    keeps_alive: bool


class RequestRefused(Exception):
    """The request is answered by `answer`, and the connection ends."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


class HttpConnection(asyncio.Protocol):
    """One connection. Requests are answered in the order of their arrival, one at a time."""

    def __init__(self, handler: Handler, connections: handler_server.OpenConnections) -> None:
        self._handler = handler
        self._connections = connections
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[Header] = []
        self._chunks: list[bytes] = []
        self._is_incomplete = False
        self._has_head = False
        self._is_continued = False
        self._size_bytes = 0
        self._queued: collections.deque[_Request] = collections.deque()
        self._task: asyncio.Task[None] | None = None
        self._is_write_paused = False
        self._is_stopping = False
        self._was_heard = True

    # Reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection's transport (asyncio)."""
        # uvloop's transports have the methods of asyncio's, but not their base classes.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes (asyncio). Bytes that are not HTTP are answered by 400."""
        self._was_heard = True
        try:
            self._parser.feed_data(data)
            if self._is_incomplete:
                self._check_incomplete(len(data))
        except httptools.HttpParserUpgrade:
            pass  # The request was answered as if it had not asked for the upgrade (RFC 9110, 7.8).
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, RequestRefused):
                self._refuse(cause.answer)
            elif isinstance(cause, httptools.HttpParserInvalidURLError):
                self._refuse(INVALID)
            else:
                raise
        except RequestRefused as refusal:
            self._refuse(refusal.answer)
        except httptools.HttpParserError:
            self._refuse(INVALID)

    def _check_incomplete(self, size_bytes: int) -> None:
        """Bound an unfinished head, and send 100 Continue to a client that waits for it."""
        if not self._has_head:
            self._size_bytes += size_bytes
            if self._size_bytes > HEAD_BYTES_MAX:
                raise RequestRefused((431, TEXT, b"The request's head is too large."))
        elif not (self._chunks or self._is_busy or self._is_continued):
            self._is_continued = True
            if self._expects_continue():
                self._transport.write(CONTINUE)

    def _expects_continue(self) -> bool:
        """Return whether the client waits for 100 Continue before it sends the body."""
        values = (value.lower() for name, value in self._headers if name == b"expect")
        return b"100-continue" in values and self._parser.get_http_version() != "1.0"

    def on_message_begin(self) -> None:
        """Begin a request (httptools)."""
        self._target = b""
        self._headers = []
        self._chunks = []
        self._is_incomplete = True
        self._has_head = False
        self._is_continued = False
        self._size_bytes = 0

    def on_url(self, part: bytes) -> None:
        """Append a part of the request's target (httptools)."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Append a header (httptools)."""
        # Names of headers are case-insensitive (RFC 9110, 5.1), and readers compare bytes.
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """End the head (httptools)."""
        self._has_head = True
        self._size_bytes = 0

    def on_body(self, chunk: bytes) -> None:
        """Append a chunk of the body (httptools). Raises if the body is over its limit."""
        self._chunks.append(chunk)
        self._size_bytes += len(chunk)
        if self._size_bytes > BODY_BYTES_MAX:
            raise RequestRefused((413, TEXT, b"The request's body is too large."))

    def on_message_complete(self) -> None:
        """Answer the request, or queue it behind those before it (httptools)."""
        self._is_incomplete = False
        parser, chunks = self._parser, self._chunks
        request = _Request(
            parser.get_method().decode(),
            _path(self._target),
            self._headers,
            # Nearly all bodies come in one chunk, which is not copied.
            chunks[0]
            if len(chunks) == 1
            else (chunks if self._size_bytes >= LARGE_BYTES else b"".join(chunks)),
            parser.should_keep_alive() and not parser.should_upgrade(),
        )
        if self._is_busy:
            # Answers must come in the order of the requests (RFC 9112, 9.3.2).
            self._queued.append(request)
            # Else a client that sends requests without end would fill the memory.
            self._transport.pause_reading()
        else:
            self._answer(request)

    # Answering

    @property
    def _is_busy(self) -> bool:
        return self._task is not None or self._is_write_paused or bool(self._queued)

    def _answer(self, request: _Request) -> None:
        method, path, headers, body, _ = request
        if isinstance(body, bytes):
            outcome = self._handler(method, path, headers, body)
        else:
            outcome = self._join_and_handle(request, body)
        if isinstance(outcome, tuple):
            self._write(outcome, request)
        else:
            self._task = tasks.spawn(self._answer_later(outcome, request), "request")

    async def _join_and_handle(self, request: _Request, parts: list[bytes]) -> Answer:
        body = await asyncio.to_thread(b"".join, parts)
        parts.clear()
        outcome = self._handler(request.method, request.path, request.headers, body)
        return outcome if isinstance(outcome, tuple) else await outcome

    async def _answer_later(self, outcome: Awaitable[Answer], request: _Request) -> None:
        try:
            answer = await outcome
        except BaseException:
            # Without an answer the client would wait for ever.
            self._transport.abort()
            raise
        finally:
            self._task = None
        self._write(answer, request)
        self._answer_queued()

    def _answer_queued(self) -> None:
        """Answer the requests that came meanwhile, then read on."""
        while self._queued and self._task is None and not self._is_write_paused:
            self._answer(self._queued.popleft())
        if self._is_busy or self._transport.is_closing():
            return
        if self._is_stopping:
            self._transport.close()
            return
        self._transport.resume_reading()
        if self._is_incomplete:
            self._check_incomplete(0)

    def _write(self, answer: Answer, request: _Request) -> None:
        if self._transport.is_closing():
            return
        status, headers, body = answer
        keeps_alive = request.keeps_alive and not self._is_stopping
        head = _head(status, headers if keeps_alive else (*headers, CLOSE)) % len(body)
        if request.method == "HEAD":
            self._transport.write(head)
        elif len(body) <= JOINED_BYTES_MAX:
            # One system call, and one event for the reader, instead of two.
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        if not keeps_alive:
            self._queued.clear()
            self._transport.close()

    def _refuse(self, answer: Answer) -> None:
        """Answer bytes that are no request, unless earlier answers are still due; then close."""
        self._is_stopping = True
        self._is_incomplete = False
        if self._is_busy:
            self._transport.pause_reading()
        else:
            self._write(answer, _Request("", b"", (), b"", keeps_alive=False))

    # Flow and end

    def pause_writing(self) -> None:
        """Answer nothing more until the client has read what was written (asyncio)."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """Go on with requests that came meanwhile (asyncio)."""
        self._is_write_paused = False
        self._answer_queued()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio's signature
        """Forget the connection (asyncio), and cancel the request under way."""
        self._queued.clear()
        self._connections.discard(self)
        if self._task is not None:
            # Cancelled later: a task that is cancelled before its first step never awaits its
            # answer, which may hold a lease. The first step is scheduled already.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def close_when_idle(self) -> None:
        """Close now if no answer is due, else after it."""
        self._is_stopping = True
        if not self._is_busy:
            self._transport.close()

    def close_if_silent(self) -> None:
        """Close unless something came since the last call, or an answer is due."""
        if not (self._was_heard or self._is_busy):
            self._transport.close()
        self._was_heard = False

    def abort(self) -> None:
        """Drop the connection and the request under way."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()


def _path(target: bytes) -> bytes:
    """Return the path of a request's target. Raises HttpParserInvalidURLError for garbage."""
    if target.startswith(b"/"):
        return target.partition(b"?")[0]
    # A server must accept the absolute form too (RFC 9112, 3.2.2).
    return httptools.parse_url(target).path or b"/"


# A server sends few different heads: nearly always only the body's length changes.
@functools.lru_cache(maxsize=64)
def _head(status: int, headers: tuple[Header, ...]) -> bytes:
    """Return the answer's head as a format for the length of its body."""
    reason = http.HTTPStatus(status).phrase.encode()
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    head = b"HTTP/1.1 %d %b\r\n%b" % (status, reason, lines)
    # Messages of errors are percent-encoded in headers, and this is a format.
    return head.replace(b"%", b"%%") + b"content-length: %d\r\n\r\n"


async def serve(
    handler: Handler,
    listeners: Sequence[socket.socket],
    connect: handler_server.ConnectionMaker = HttpConnection,
) -> handler_server.HandlerServer:
    """Serve the handler on bound sockets; return once connections are accepted."""
    server = handler_server.HandlerServer(handler, listeners, connect)
    await server.start()
    return server
