"""Lets clients call an LLM by names that its engine does not have.

An engine knows the LLM's own name, and adapters by names that change with their weights. So an
alias moves, and an adapter gets other weights, without a change in the engine. What a client calls
is in headers of the gateway's; answers have the name that the client called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from meshserve.core.interfaces import llm_engine
from meshserve.llm import request_body
from meshserve.protocol import paths

CALLED = paths.MODEL_HEADER.encode()
IS_ALIAS = paths.IS_ALIAS_HEADER.encode()
LENGTH = b"content-length"
BODY_LENGTHS = frozenset({LENGTH, b"transfer-encoding"})
CONTENT_TYPE = b"content-type"
BOUNDARY = re.compile(rb'^multipart/form-data;.*boundary="?([^";]+)', re.IGNORECASE)
SPACE = b" \t\r\n"
JSON, EVENTS = b"application/json", b"text/event-stream"


class RenamedModels:
    """An ASGI app around an engine's, which translates the model's name in requests and answers.

    `adapters` has the engine's name of each adapter by the name that clients call.
    """

    def __init__(self, app: llm_engine.Asgi, llm: str) -> None:
        self.adapters: Mapping[str, str] = {}
        self._app = app
        self._llm = llm

    async def __call__(
        self, scope: llm_engine.Scope, receive: llm_engine.Receive, send: llm_engine.Send
    ) -> None:
        """Answer one request (ASGI)."""
        headers = dict(scope.get("headers", ()))
        called = headers.get(CALLED, b"").decode("utf-8", "replace")
        known = self._llm if IS_ALIAS in headers else self.adapters.get(called, called)
        if not called or known == called:
            await self._app(scope, receive, send)
            return
        body = await request_body.read_body(receive)
        if body is None:
            return
        body = _renamed(body, headers.get(CONTENT_TYPE, b""), known)
        # The body has another length now, and comes whole even if it came in chunks.
        others = [(key, value) for key, value in scope["headers"] if key not in BODY_LENGTHS]
        inner = {**scope, "headers": [*others, (LENGTH, b"%d" % len(body))]}
        receive_renamed = request_body.receive_other(body, receive)
        await self._app(inner, receive_renamed, RenamedAnswer(known, called, send).send)


class RenamedAnswer:
    """One answer on its way to the client: `known` as its model becomes `called`."""

    def __init__(self, known: str, called: str, send: llm_engine.Send) -> None:
        # Inside of a JSON text its quotes are escaped, so this is found at keys alone.
        written = b"|".join(map(re.escape, (orjson.dumps(known), json.dumps(known).encode())))
        # Python's `json` writes a space behind the colon and escapes letters beyond ASCII; orjson
        # does neither.
        self._known = re.compile(rb'(?<="model":)( ?)(?:%b)' % written)
        self._called = orjson.dumps(called)
        self._send = send
        self._start: Mapping[str, Any] | None = None
        self._is_stream = False
        self._rest = b""

    async def send(self, message: llm_engine.Scope) -> None:
        """Take the next message of the engine's answer (ASGI)."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] != "http.response.body" or not (self._start or self._is_stream):
            await self._send(message)
        else:
            self._rest += message.get("body", b"")
            await self._go_on(has_more=message.get("more_body", False))

    async def _begin(self, start: llm_engine.Scope) -> None:
        kind = dict(start.get("headers", ())).get(CONTENT_TYPE, b"").partition(b";")[0]
        self._is_stream = kind == EVENTS
        # The length of a whole answer is known only once it is there.
        if kind == JSON:
            self._start = start
        else:
            await self._send(start)

    async def _go_on(self, *, has_more: bool) -> None:
        if not self._is_stream:
            if not has_more:
                await self._send_whole(self.translated(self._rest))
            return
        # No name goes beyond its line.
        end = self._rest.rfind(b"\n") + 1 if has_more else len(self._rest)
        lines, self._rest = self._rest[:end], self._rest[end:]
        if lines or not has_more:
            await self._send(
                {
                    "type": "http.response.body",
                    "body": self.translated(lines),
                    "more_body": has_more,
                }
            )

    async def _send_whole(self, body: bytes) -> None:
        assert self._start is not None
        headers = [pair for pair in self._start.get("headers", ()) if pair[0].lower() != LENGTH]
        await self._send({**self._start, "headers": [*headers, (LENGTH, b"%d" % len(body))]})
        await self._send({"type": "http.response.body", "body": body})

    def translated(self, text: bytes) -> bytes:
        """Return a part of the answer, of whole lines, with the name that the client called."""
        return self._known.sub(lambda match: match[1] + self._called, text)


def _renamed(body: bytes, content_type: bytes, name: str) -> bytes:
    """Return a request's body with another model: a further one behind the client's.

    Of several members, or fields, with one name, engines take the last, as Python's readers of
    JSON and of forms do. So no byte of what the client wrote has to be read or moved.
    """
    boundary = BOUNDARY.match(content_type)
    text = body.rstrip(SPACE)
    if boundary is not None:
        mark = b"--" + boundary[1]
        fields, closing, end = body.rpartition(mark + b"--")
        head = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        return fields + mark + head + name.encode() + b"\r\n" + closing + end if closing else body
    if not text.endswith(b"}"):
        return body
    return text[:-1] + b',"model":' + orjson.dumps(name) + b"}"
