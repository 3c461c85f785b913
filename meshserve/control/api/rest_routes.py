"""Helpers of all REST handlers: request bodies, answers, errors, and names in paths."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote

import orjson
from starlette import convertors, routing
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from meshserve import errors
from meshserve.protocol import error_responses

Handler = Callable[[Request], Awaitable[object]]
"""A handler returns a Response, or the content of a JSON answer."""

Endpoint = Callable[[Request], Awaitable[Response]]
Refusal = Callable[[errors.MeshError], tuple[int, Sequence[error_responses.Header], bytes]]

BODY_BYTES_MAX = 1 << 30
LIMIT_DEFAULT = 1000
LIMIT_MAX = 10_000

logger = logging.getLogger(__name__)


class QuotedConvertor(convertors.Convertor[str]):
    """A name in one segment of a path; `a%2Fb` is the name `a/b`."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """Return the name, unquoted."""
        return unquote(value)

    def to_string(self, value: str) -> str:
        """Raise NotImplementedError: no handler builds URLs."""
        raise NotImplementedError


class QuotedPathConvertor(QuotedConvertor):
    """A name that may hold unquoted slashes, at the end of a path."""

    regex = ".+"


convertors.register_url_convertor("name", QuotedConvertor())
convertors.register_url_convertor("names", QuotedPathConvertor())


def route(method: str, path: str, handler: Handler) -> routing.Route:
    """Return a route for one method; errors of the handler become REST errors."""
    added = routing.Route(path, answering(handler, error_responses.rest_error), methods=[method])
    # Starlette adds HEAD to every GET; the management API has no HEAD.
    added.methods = {method}
    return added


def answering(handler: Handler, refusal: Refusal) -> Endpoint:
    """Return an endpoint that calls the handler and answers its errors in the form of `refusal`."""

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        try:
            answer = await handler(request)
            return answer if isinstance(answer, Response) else json_response(answer)
        except errors.MeshError as error:
            return _response(refusal(error))
        except Exception as error:
            # A bug in one request must not end a connection that other requests share.
            logger.exception("%s failed", request.scope["path"])
            ours = errors.MeshError(f"the controller failed: {type(error).__name__}")
            return _response(refusal(ours))

    return endpoint


def _response(parts: tuple[int, Sequence[error_responses.Header], bytes]) -> Response:
    status, headers, body = parts
    named = {name.decode(): value.decode() for name, value in headers}
    return Response(body, status, named)


def json_response(content: Any, status: int = 200) -> Response:
    """Return an answer with a JSON body."""
    body = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, media_type="application/json")


async def read_body(request: Request) -> bytes:
    """Return the whole body. Raises PayloadTooLarge, or Unavailable if the client leaves."""
    parts: list[bytes] = []
    size_bytes = 0
    try:
        async for part in request.stream():
            # Counted while it comes, because a body in chunks does not announce its length.
            size_bytes += len(part)
            if size_bytes > BODY_BYTES_MAX:
                raise errors.PayloadTooLarge(f"the body is bigger than {BODY_BYTES_MAX} bytes")
            parts.append(part)
    except ClientDisconnect:
        raise errors.Unavailable("the client went away") from None
    return b"".join(parts)


async def read_json(request: Request) -> dict[str, Any]:
    """Return the body's JSON object; an empty body is an empty object. Raises InvalidRequest."""
    body = await read_body(request)
    return json_object(body, "the body") if body.strip() else {}


def json_object(text: str | bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in a text, which errors call `name`. Raises InvalidRequest."""
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise errors.InvalidRequest(f"{name} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise errors.InvalidRequest(f"{name} must be a JSON object")
    return content


def limit(request: Request) -> int:
    """Return how many entries a listing may have. Raises InvalidRequest."""
    text = request.query_params.get("limit", str(LIMIT_DEFAULT))
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
        raise errors.InvalidRequest(
            f"limit must be a whole number from 1 to {LIMIT_MAX}, not {text!r}"
        )
    return int(text)
