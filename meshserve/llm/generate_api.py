"""Open Inference Protocol's `generate` and `generate_stream`, answered by OpenAI's completions.

Source: generate_rest.yaml in github.com/kserve/open-inference-protocol, which Triton's extension
of the same name agrees with.
"""

from __future__ import annotations

import http
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.llm import request_body
from meshserve.protocol import paths

# A name may hold slashes, as `org/model` does.
PATH = re.compile(
    rf"^{paths.V2_MODELS}(?P<name>.+?)(/versions/[^/]+)?/(?P<verb>generate(_stream)?)/?$"
)
JSON_TYPE = (b"content-type", b"application/json")
EVENTS_TYPE = (b"content-type", b"text/event-stream")
COMPLETIONS = "/v1/completions"
EVENT = b"data: "
LAST_EVENT = b"[DONE]"
VERSION = "1"
"""The version of every LLM: they have one each."""


def handler(engine_app: llm_engine.Asgi, scope: llm_engine.Scope) -> Generation | None:
    """Return what answers a request to one of these paths, None for other paths."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    match = PATH.match(raw.decode("latin-1").partition("?")[0])
    if match is None or scope["method"] != "POST":
        return None
    name = unquote(match["name"])
    return Generation(engine_app, name, is_stream=match["verb"] == "generate_stream")


class Generation:
    """One request. The model answers in its own way, and `_send` translates the answer."""

    def __init__(self, engine_app: llm_engine.Asgi, name: str, *, is_stream: bool) -> None:
        self._engine_app = engine_app
        self._name = name
        self._is_stream = is_stream
        self._status = 0
        self._text = b""
        self._outer: llm_engine.Send

    async def answer(
        self, scope: llm_engine.Scope, receive: llm_engine.Receive, send: llm_engine.Send
    ) -> None:
        """Answer the request (ASGI)."""
        self._outer = send
        try:
            body = orjson.dumps(self._completion(await request_body.read_body(receive)))
        except errors.InvalidRequest as error:
            await self._answer_whole(400, {"error": error.message})
            return
        # The engine gets another body, which has a length and a type of its own.
        kept = [(key, value) for key, value in scope["headers"] if key not in _BODY_HEADERS]
        headers = [*kept, JSON_TYPE, (b"content-length", b"%d" % len(body))]
        inner = {**scope, "path": COMPLETIONS, "raw_path": COMPLETIONS.encode(), "headers": headers}
        inner["query_string"] = b""
        await self._engine_app(inner, request_body.receive_other(body, receive), self._send)

    def _completion(self, body: bytes | None) -> dict[str, Any]:
        """Return the request as OpenAI's. Raises InvalidRequest, also if the client has left."""
        if body is None:
            raise errors.InvalidRequest("the client left")
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise errors.InvalidRequest(f"the body is not JSON: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("text_input"), str):
            raise errors.InvalidRequest(
                "the body must be a JSON object with a text_input, a string"
            )
        parameters = document.pop("parameters", None) or {}
        if not isinstance(parameters, dict):
            raise errors.InvalidRequest("parameters must be an object")
        prompt = document.pop("text_input")
        document.pop("id", None)
        # Triton's clients give parameters beside the text too.
        asked = {**document, **parameters}
        return {**asked, "model": self._name, "prompt": prompt, "stream": self._is_stream}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._is_event_stream:
                await self._start(EVENTS_TYPE)
            return
        self._text += message.get("body", b"")
        has_more = message.get("more_body", False)
        if self._is_event_stream:
            await self._send_events(has_more=has_more)
        elif not has_more:
            await self._answer_whole(self._status, self._translated(orjson.loads(self._text)))

    @property
    def _is_event_stream(self) -> bool:
        return self._is_stream and self._status == http.HTTPStatus.OK

    async def _send_events(self, *, has_more: bool) -> None:
        """Pass on the events that came whole, each with its text."""
        *lines, self._text = self._text.split(b"\n")
        events = (line[len(EVENT) :].strip() for line in lines if line.startswith(EVENT))
        body = b"".join(
            b"%b%b\n\n" % (EVENT, orjson.dumps(self._translated(orjson.loads(event))))
            for event in events
            if event != LAST_EVENT
        )
        if body or not has_more:
            part = {"type": "http.response.body", "body": body, "more_body": has_more}
            await self._outer(part)

    def _translated(self, document: Any) -> dict[str, Any]:
        """Return an answer or one event of it, or an error, in the protocol's form."""
        error = document.get("error")
        if error is not None:
            return {"error": error.get("message", "") if isinstance(error, dict) else error}
        text = "".join(choice.get("text") or "" for choice in document.get("choices", []))
        return {"model_name": self._name, "model_version": VERSION, "text_output": text}

    async def _start(self, *headers: tuple[bytes, bytes]) -> None:
        start = {"type": "http.response.start", "status": self._status, "headers": list(headers)}
        await self._outer(start)

    async def _answer_whole(self, status: int, document: Mapping[str, Any]) -> None:
        body = orjson.dumps(document)
        self._status = status
        await self._start(JSON_TYPE, (b"content-length", b"%d" % len(body)))
        await self._outer({"type": "http.response.body", "body": body})


_BODY_HEADERS = frozenset({b"content-length", b"content-type", b"transfer-encoding"})
