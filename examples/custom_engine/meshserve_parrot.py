"""An engine that repeats the words of the prompt: the smallest one that meshserve can serve.

Configured as `llms: [{name: polly, uri: /any/folder, runtime: parrot}]`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from meshserve import errors
from meshserve.core.interfaces import llm_engine

STEP_S = 0.005


class ParrotEngine(llm_engine.Engine):
    """Makes one token, a word, every STEP_S seconds. It has no processes of its own to end."""

    def __init__(self) -> None:
        self._order: llm_engine.EngineOrder | None = None
        self._failure = ""
        self._running = 0
        self._tokens = 0
        self._answered = 0
        self._app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/completions", self._complete, methods=["POST"]),
            ]
        )

    async def start(self, order: llm_engine.EngineOrder) -> None:
        """Take the order: no model has to be loaded."""
        self._order = order

    @property
    def app(self) -> llm_engine.Asgi:
        """The API."""
        return self._app

    async def make_token(self) -> None:
        """Make one word. Raises Unavailable once the engine is dead."""
        async for _ in self._words("ready", 1):
            return

    def failure(self) -> str:
        """Return why it is dead."""
        return self._failure

    def counts(self) -> llm_engine.EngineCounts:
        """Return its counts; each answer had its first token within a second."""
        ttft = ((1.0, self._answered), (math.inf, self._answered))
        return llm_engine.EngineCounts(
            running=self._running, tokens=self._tokens, ttft=ttft, progress=self._tokens
        )

    def kill(self) -> None:
        """End all requests with errors."""
        self._failure = "it was killed"

    async def close(self) -> None:
        """End all requests with errors."""
        self.kill()

    async def _words(self, prompt: str, count: int) -> AsyncIterator[str]:
        self._running += 1
        try:
            for word in itertools.islice(itertools.cycle(prompt.split() or ["?"]), count):
                await asyncio.sleep(STEP_S)
                if self._failure:
                    raise errors.Unavailable(self._failure)
                self._tokens += 1
                yield f"{word} "
            self._answered += 1
        finally:
            self._running -= 1

    async def _models(self, _: Request) -> Response:
        names = [self._order.spec.name] if self._order else []
        return JSONResponse({"object": "list", "data": [{"id": name} for name in names]})

    async def _complete(self, request: Request) -> Response:
        try:
            body = await request.json()
        except ValueError:
            return _error(400, "the body is not JSON")
        if self._order is None or body.get("model") != self._order.spec.name:
            return _error(404, f"there is no model {body.get('model')!r}")
        count = body.get("max_tokens", 16)
        if count < 0:
            return _error(400, "max_tokens must be at least 1")
        words = self._words(body["prompt"], count)
        if body.get("stream"):
            return StreamingResponse(_events(words), media_type="text/event-stream")
        text = "".join([word async for word in words])
        usage = {"completion_tokens": count}
        return JSONResponse({"choices": [{"index": 0, "text": text}], "usage": usage})


def _error(status: int, message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": status}
    return JSONResponse({"error": error}, status)


async def _events(words: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        async for word in words:
            yield _event({"choices": [{"index": 0, "text": word}]})
    except errors.Unavailable as error:
        yield _event({"error": {"message": str(error), "code": 500}})
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
