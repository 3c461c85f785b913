"""What little of HTTP the control plane needs: a request read whole, an answer, and JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson

from meshserve import errors
from meshserve.protocol import error_responses

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
BODY_BYTES_MAX = 1 << 30
LIMIT_MAX = 10_000
LIMIT = 1000


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, whole. `path` is as the client wrote it, still quoted, without the query."""

    method: str
    path: str
    query: dict[str, str]
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one is {}. Raises InvalidRequest."""
        if not self.body.strip():
            return {}
        try:
            found = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise errors.InvalidRequest(f"the body is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise errors.InvalidRequest("the body must be a JSON object")
        return found

    def limit(self) -> int:
        """How many entries of a listing are asked for. Raises InvalidRequest."""
        text = self.query.get("limit", str(LIMIT))
        if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
            raise errors.InvalidRequest(
                f"limit must be a whole number from 1 to {LIMIT_MAX}, not {text!r}"
            )
        return int(text)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One answer, whole."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = (error_responses.JSON_TYPE,)


def json_answer(found: Any) -> HttpAnswer:
    """A JSON body."""
    return HttpAnswer(orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS))


def text_answer(text: str | bytes) -> HttpAnswer:
    """A body of plain text."""
    body = text.encode() if isinstance(text, str) else text
    return HttpAnswer(
        body, headers=((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)
    )


def refusal(error: errors.MeshError) -> HttpAnswer:
    """A REST error."""
    status, headers, body = error_responses.rest_error(error)
    return HttpAnswer(body, status, tuple(headers))


async def read(scope: Scope, receive: Receive) -> HttpRequest:
    """The request, when all of it is there. Raises PayloadTooLarge."""
    parts: list[bytes] = []
    size, is_more = 0, True
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise errors.Unavailable("the client went away")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        is_more = message.get("more_body", False)
        if size > BODY_BYTES_MAX:
            raise errors.PayloadTooLarge(f"the body is bigger than {BODY_BYTES_MAX} bytes")
    query = dict(
        parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    )
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").partition("?")[0]
    return HttpRequest(scope["method"], path, query, list(scope["headers"]), b"".join(parts))


async def write(send: Send, answer: HttpAnswer) -> None:
    """Send the answer."""
    headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
