"""What tests of the HTTP server share: a handler that they steer, requests as bytes, answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from meshserve.protocol import http_protocol


class Handler:
    """Answers with method, path, body and `x-echo`; requests to `/later` once `gate` is open."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes, Sequence[http_protocol.Header], bytes]] = []
        # Whether each call came from a task, and not from the transport's callback.
        self.were_tasks: list[bool] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.called, self.answered = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.cancelled = asyncio.Semaphore(0)

    def __call__(
        self, method: str, path: bytes, headers: Sequence[http_protocol.Header], body: bytes
    ) -> http_protocol.Answer | Awaitable[http_protocol.Answer]:
        self.requests.append((method, path, headers, body))
        self.were_tasks.append(asyncio.current_task() is not None)
        self.called.release()
        echo = dict(headers).get(b"x-echo", b"")
        if path == b"/raises":
            raise RuntimeError("the handler is broken")
        answer = (200, ((b"x-echo", echo),), b"%b %b %b" % (method.encode(), path, body))
        if path == b"/empty":
            return 503, (), b""
        return self._later(answer, path) if path.startswith(b"/later") else answer

    async def _later(
        self, answer: tuple[int, tuple[tuple[bytes, bytes]], bytes], path: bytes
    ) -> Any:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        self.answered.release()
        if path == b"/later/raises":
            raise RuntimeError("the handler is broken")
        return answer


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """Return a request's bytes."""
    length = (b"content-length: %d" % len(body),) if body else ()
    return b"\r\n".join([line + b" HTTP/1.1", b"host: x", *length, *headers, b"", body])


async def answer_of(reader: asyncio.StreamReader) -> Any:
    """Read one answer; return its status line, its headers and its body."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        status, *lines = head[:-4].split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        return status, headers, await reader.readexactly(int(headers[b"content-length"]))


async def ends(reader: asyncio.StreamReader) -> bool:
    """Return whether the server closes the connection without more bytes."""
    async with asyncio.timeout(10):
        return await reader.read() == b""


async def send_all(writer: asyncio.StreamWriter, requests: list[bytes]) -> None:
    for bytes_ in requests:
        writer.write(bytes_)
        await writer.drain()
