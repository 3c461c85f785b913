"""Put load of streamed completions on a server over HTTP/1.1, in one event loop.

The client costs little beside what it measures: bytes are kept as they come, with the times of the
first token and of the end, and parsed when the load is over.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import uvloop

PATH = "/v1/completions"
EVENT = b"data: "
LAST_CHUNK = b"0\r\n\r\n"
ANSWER_S = 60.0


class LoadFailed(Exception):
    """A request was not answered with a whole stream of tokens."""


@dataclass(frozen=True)
class Answer:
    """One stream: when its first token came, its text, and its number of tokens."""

    ttft_ms: float
    text: str
    tokens: int


@dataclass(frozen=True)
class Outcome:
    """The figures of one load; answers in the order of their requests."""

    answers: tuple[Answer, ...]
    elapsed_s: float

    @property
    def tokens_per_s(self) -> float:
        """Return tokens a second of all streams together."""
        return sum(answer.tokens for answer in self.answers) / self.elapsed_s

    def ttft_ms(self, percent: float) -> float:
        """Return the time by which that many per cent of the streams had their first token."""
        return float(np.percentile([answer.ttft_ms for answer in self.answers], percent))


def run(endpoint: str, bodies: Sequence[bytes], streams: int) -> Outcome:
    """POST the bodies over one connection for each concurrent stream. Raises LoadFailed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load(endpoint, bodies, streams))


async def load(endpoint: str, bodies: Sequence[bytes], streams: int) -> Outcome:
    """Do the same in the running event loop."""
    host, _, port = endpoint.rpartition(":")
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(_Connection, host, int(port)))[1] for _ in range(streams)
    ]
    waiting = iter(enumerate(bodies))
    answers: dict[int, tuple[float, bytes]] = {}

    async def ask(connection: _Connection) -> None:
        for number, body in waiting:
            answers[number] = await connection.ask(body)

    began_s = time.perf_counter()
    try:
        await asyncio.gather(*(ask(connection) for connection in connections))
        elapsed_s = time.perf_counter() - began_s
    finally:
        for connection in connections:
            connection.close()
    return Outcome(tuple(answer(*answers[number]) for number in sorted(answers)), elapsed_s)


class _Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self._tail = b""
        self._first_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class

    def data_received(self, data: bytes) -> None:
        if self._first_s is None and EVENT in data:
            self._first_s = time.perf_counter()
        self._parts.append(data)
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        if self._tail == LAST_CHUNK or not self._parts[0].startswith(b"HTTP/1.1 200"):
            self._end()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def ask(self, body: bytes) -> tuple[float, bytes]:
        """Return milliseconds to the first token, and all bytes. Raises LoadFailed."""
        self._parts, self._tail, self._first_s = [], b"", None
        self._done = asyncio.get_running_loop().create_future()
        began_s = time.perf_counter()
        assert self._transport is not None, "ask before the connection was made"
        self._transport.write(
            b"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (PATH.encode(), len(body), body)
        )
        await asyncio.wait_for(self._done, ANSWER_S)
        came = b"".join(self._parts)
        if self._first_s is None:
            raise LoadFailed(f"no token came: {came.decode(errors='replace')}")
        return (self._first_s - began_s) * 1e3, came

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def answer(ttft_ms: float, came: bytes) -> Answer:
    """Parse a chunked HTTP response whose last event but one has the usage. Raises LoadFailed."""
    events = [
        json.loads(line[len(EVENT) :])
        for line in _body(came).splitlines()
        if line.startswith(b"data: {")
    ]
    usage = events[-1].get("usage")
    if usage is None or any("error" in event for event in events):
        raise LoadFailed(f"the stream ended with {events[-1]}")
    text = "".join(choice["text"] for event in events for choice in event["choices"])
    return Answer(ttft_ms, text, usage["completion_tokens"])


def _body(came: bytes) -> bytes:
    return b"".join(_chunks(came.partition(b"\r\n\r\n")[2]))


def _chunks(rest: bytes) -> Iterator[bytes]:
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        yield rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
