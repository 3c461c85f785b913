from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router

from meshserve import errors
from meshserve.control.api import rest_routes
from meshserve.protocol import error_responses


def request(*parts: bytes, query: str = "", is_gone: bool = False) -> Request:
    """Return a request whose body comes in these parts, or whose client leaves after them."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": True} for part in parts
    ]
    messages.append({"type": "http.disconnect"} if is_gone else {"type": "http.request"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/x",
        "query_string": query.encode(),
        "headers": [],
    }
    return Request(scope, receive)


async def test_a_body_is_read_whole() -> None:
    assert await rest_routes.read_body(request(b"ab", b"cd")) == b"abcd"


async def test_a_client_that_leaves_is_unavailable() -> None:
    with pytest.raises(errors.Unavailable):
        await rest_routes.read_body(request(b"ab", is_gone=True))


async def test_a_body_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_routes, "BODY_BYTES_MAX", 3)
    with pytest.raises(errors.PayloadTooLarge):
        await rest_routes.read_body(request(b"abcd"))


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
async def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(errors.InvalidRequest):
        await rest_routes.read_json(request(body))


async def test_no_body_is_an_empty_object() -> None:
    assert await rest_routes.read_json(request(b" \n")) == {}


@pytest.mark.parametrize(("query", "limit"), [("", rest_routes.LIMIT_DEFAULT), ("limit=5", 5)])
def test_a_limit_is_a_number(query: str, limit: int) -> None:
    assert rest_routes.limit(request(query=query)) == limit


@pytest.mark.parametrize("text", ["0", "-1", "x", "10001"])
def test_another_limit_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="limit must be"):
        rest_routes.limit(request(query=f"limit={text}"))


async def answer_to(error: Exception) -> Response:
    async def handler(_: Request) -> Response:
        raise error

    return await rest_routes.answering(handler, error_responses.rest_error)(request())


async def test_an_error_becomes_an_answer_with_the_wait() -> None:
    answer = await answer_to(errors.Unavailable("later", retry_after_s=1.2))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert orjson.loads(answer.body) == {"error": "later"}


async def test_a_bug_becomes_an_answer_and_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await answer_to(KeyError("x"))
    assert answer.status_code == 500
    assert orjson.loads(answer.body) == {"error": "the controller failed: KeyError"}
    assert "/x failed" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("path", "names"),
    [("/one/a%2Fb", ["a/b"]), ("/all/a/b%20c", ["a/b c"]), ("/one/a/b", []), ("/one/", [])],
)
async def test_names_in_paths_are_unquoted(path: str, names: Sequence[str]) -> None:
    seen: list[str] = []

    async def handler(request: Request) -> Response:
        seen.append(request.path_params["name"])
        return Response()

    async def send(_: MutableMapping[str, Any]) -> None:
        """Take the answer."""

    routes = [
        rest_routes.route("GET", "/one/{name:name}", handler),
        rest_routes.route("GET", "/all/{name:names}", handler),
    ]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await Router(routes, redirect_slashes=False)(scope, request().receive, send)
    assert seen == names
