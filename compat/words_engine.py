"""An engine without a model that answers OpenAI's API and Anthropic's with words by a rule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from meshserve.core.interfaces import llm_engine
from meshserve.testing import fake_engine

MESSAGES = "/v1/messages"
ANSWER = ("ash", "birch", "cedar")
"""What every message of Anthropic's API is answered with."""


class WordsEngine(fake_engine.FakeEngine):
    """The fake engine, and Anthropic's messages beside it, which vLLM's server has too."""

    @property
    def app(self) -> llm_engine.Asgi:
        """The app of both APIs."""
        return self._dispatch

    async def _dispatch(
        self, scope: llm_engine.Scope, receive: llm_engine.Receive, send: llm_engine.Send
    ) -> None:
        if scope["path"] != MESSAGES:
            await super().app(scope, receive, send)
            return
        request = json.loads(await _body(receive))
        if request.get("stream"):
            await _send(send, "text/event-stream", _events(request))
        else:
            await _send(send, "application/json", [json.dumps(message(request)).encode()])


async def _body(receive: llm_engine.Receive) -> bytes:
    parts = []
    while True:
        event = await receive()
        parts.append(event.get("body", b""))
        if not event.get("more_body"):
            return b"".join(parts)


def message(request: dict[str, Any]) -> dict[str, Any]:
    """Return a whole answer in the form of Anthropic's API."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [{"type": "text", "text": " ".join(ANSWER)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": len(ANSWER)},
    }


def _events(request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the same answer as the events of a stream."""
    empty = {**message(request), "content": [], "stop_reason": None}
    yield _event("message_start", message=empty)
    yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for index, word in enumerate(ANSWER):
        delta = {"type": "text_delta", "text": f"{' ' if index else ''}{word}"}
        yield _event("content_block_delta", index=0, delta=delta)
    yield _event("content_block_stop", index=0)
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _event("message_delta", delta=ended, usage={"output_tokens": len(ANSWER)})
    yield _event("message_stop")


def _event(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


async def _send(
    send: llm_engine.Send, content_type: str, parts: Sequence[bytes] | Iterator[bytes]
) -> None:
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
