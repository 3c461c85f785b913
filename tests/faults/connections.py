"""Clients that connect anew for each request, and what becomes of their connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from meshserve import tasks
from tests.faults import traffic

STEP_S = 0.002
ANSWER_S = 30.0


@dataclass
class Connections:
    """Counts by outcome: `answered`, `refused`, `reset`, `closed`, or an HTTP status."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    async def ask(self, listen: str, number: int) -> None:
        """Send one REST request on a connection of its own, and check the answer."""
        sent_s = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                outcome = await _outcome(listen, number)
        except TimeoutError:
            outcome = "timeout"
        self.outcomes[outcome] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - sent_s)


async def _outcome(listen: str, number: int) -> str:
    host, _, port = listen.partition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return "refused"
    except ConnectionError:
        return "reset"
    try:
        writer.write(_request(number))
        answer = await reader.read()
    except ConnectionError:
        return "reset"
    finally:
        writer.close()
    if not answer:
        return "closed"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split()[1].decode()
    if status != "200":
        return status
    expected = [value * number for value in traffic.X[0].tolist()]
    values = json.loads(body)["outputs"][0]["data"]
    is_right = all(abs(a - b) < 1e-4 for a, b in zip(values, expected, strict=True))
    return "answered" if is_right else "wrong"


def _request(number: int) -> bytes:
    data = {"name": "x", "datatype": "FP32", "shape": [1, 8], "data": traffic.X[0].tolist()}
    body = json.dumps({"inputs": [data]}).encode()
    head = (
        f"POST /v2/models/m{number}/infer HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextlib.asynccontextmanager
async def flowing(listen: str, models: int, per_s: float) -> AsyncIterator[Connections]:
    """Send requests at a steady rate, however long answers take; at the end await them all."""
    seen, sent, is_over = Connections(), set(), asyncio.Event()

    async def send() -> None:
        begun_s, count = time.monotonic(), 0
        while not is_over.is_set():
            while count < (time.monotonic() - begun_s) * per_s:
                task = tasks.spawn(seen.ask(listen, count % models), "ask", is_awaited=True)
                sent.add(task)
                task.add_done_callback(sent.discard)
                count += 1
            await asyncio.sleep(STEP_S)

    sending = tasks.spawn(send(), "send", is_awaited=True)
    try:
        yield seen
    finally:
        is_over.set()
        await sending
        await asyncio.gather(*sent)
