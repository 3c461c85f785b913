"""The ASGI app around an engine's app: it adds health checks, request counts, and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson

from meshserve.core.interfaces import llm_engine
from meshserve.llm import error_shapes, generate_api, model_names
from meshserve.protocol import llm_errors, paths

RETRY_S = 5
"""Retry-After of a refusal: shorter than a restart, but gateways stop using the replica earlier."""

PROBES = frozenset({"/health", "/load", paths.METRICS, "/ping", "/version"})
"""Paths of probes, which ask about the engine and do not count as its requests."""


class LlmApp:
    """Passes one replica's requests to the engine's app, and its answers to the clients.

    No byte is touched but the names that clients call, where the engine has others, and errors.
    While `refusal` has a reason, every request is answered by 503 with it. While `is_draining`,
    only the health check fails, and requests that gateways still send are answered.
    `failure` is called for each request, so that none reaches a dead engine before the server has
    noticed its death.
    """

    def __init__(self, engine_app: llm_engine.Asgi, llm: str, failure: Callable[[], str]) -> None:
        self.is_draining = False
        self.refusal = ""
        self.requests = 0
        self.in_flight = 0
        self.names = model_names.RenamedModels(error_shapes.ShapedErrors(engine_app, llm), llm)
        self._engine_app = engine_app
        self._failure = failure
        self._idle = asyncio.Event()

    async def __call__(
        self, scope: llm_engine.Scope, receive: llm_engine.Receive, send: llm_engine.Send
    ) -> None:
        """Answer one request (ASGI)."""
        path: str = scope["path"]
        if path == paths.HEALTHZ:
            await self._answer_health(send)
        elif refusal := self.refusal or self._failure():
            await _refuse(send, path, refusal)
        # Probes come for ever, and must not keep an LLM without other requests from being idle.
        elif path in PROBES:
            await self._engine_app(scope, receive, send)
        else:
            await self._pass_on(scope, receive, send)

    async def wait_until_idle(self) -> None:
        """Return once every request that came is answered."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def _pass_on(
        self, scope: llm_engine.Scope, receive: llm_engine.Receive, send: llm_engine.Send
    ) -> None:
        self.requests += 1
        self.in_flight += 1
        is_v2 = scope["path"].startswith(paths.V2_MODELS)
        generation = generate_api.handler(self.names, scope) if is_v2 else None
        answer = self.names if generation is None else generation.answer
        try:
            await answer(scope, receive, send)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def _answer_health(self, send: llm_engine.Send) -> None:
        is_up = not self.refusal and not self.is_draining
        status, body = (200, b"ok") if is_up else (503, b"not ready")
        await _send(send, status, [(b"content-type", b"text/plain")], body)


async def _refuse(send: llm_engine.Send, path: str, reason: str) -> None:
    error: dict[str, object] = {
        "message": reason,
        "type": "service_unavailable",
        "param": None,
        "code": "engine_unavailable",
    }
    is_anthropic = llm_errors.is_anthropic(path)
    body = llm_errors.anthropic(reason, 503) if is_anthropic else {"error": error}
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"%d" % RETRY_S)]
    await _send(send, 503, headers, orjson.dumps(body))


async def _send(
    send: llm_engine.Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
