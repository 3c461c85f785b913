"""The ASGI app around an engine's own: it answers health checks, counts requests, and lets every byte of the rest through untouched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from meshserve.core.interfaces import llm_engine
from meshserve.protocol import paths

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

RETRY_S = 5
"""What a caller is told to wait: an engine may take longer to come back, but by then the gateway knows that it is gone."""

PROBES = frozenset({"/health", "/load", paths.METRICS, "/ping", "/version"})
"""What is asked about an engine, not of it."""


class LlmApp:
    """One replica's requests. With a `refusal` each is sent away with that reason; while it drains only the health check says no.

    `failure` is asked with each request: whoever comes after the engine's end is told so, before its server has noticed.
    """

    def __init__(self, engine_app: llm_engine.Asgi, failure: Callable[[], str]) -> None:
        self.is_draining = False
        self.refusal = ""
        self.requests = 0
        self.in_flight = 0
        self._engine_app = engine_app
        self._failure = failure
        self._idle = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        path: str = scope["path"]
        if path == paths.HEALTHZ:
            await self._answer_health(send)
        elif refusal := self.refusal or self._failure():
            await _refuse(send, refusal)
        elif path in PROBES:
            await self._engine_app(scope, receive, send)
        else:
            await self._pass_on(scope, receive, send)

    async def wait_until_idle(self) -> None:
        """Return once every request that came is answered."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def _pass_on(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.requests += 1
        self.in_flight += 1
        try:
            await self._engine_app(scope, receive, send)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def _answer_health(self, send: Send) -> None:
        is_up = not self.refusal and not self.is_draining
        await _send(
            send,
            200 if is_up else 503,
            [(b"content-type", b"text/plain")],
            b"ok" if is_up else b"not ready",
        )


async def _refuse(send: Send, reason: str) -> None:
    told = {
        "message": reason,
        "type": "service_unavailable",
        "param": None,
        "code": "engine_unavailable",
    }
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"%d" % RETRY_S)]
    await _send(send, 503, headers, orjson.dumps({"error": told}))


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})
