from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from meshserve.llm import error_shapes

VLLMS = {"error": {"message": "max_tokens", "type": "BadRequestError", "param": None, "code": 400}}
OTHER_KIND = {"type": "error", "error": {"type": "BadRequestError", "message": "too long"}}


async def refuse(_: Request) -> Response:
    raise HTTPException(400, "There was an error parsing the body")


async def answer(request: Request) -> Response:
    """Answer with the status and the body that the client asks for."""
    status, document = (await request.json()).values()
    if isinstance(document, str):
        return PlainTextResponse(document, status)
    return JSONResponse(document, status)


@pytest.fixture
def http() -> httpx.AsyncClient:
    routes = [
        Route("/v1/chat/completions", refuse, methods=["POST"]),
        Route("/v1/messages", refuse, methods=["POST"]),
        Route("/v1/said", answer, methods=["POST"]),
        Route("/v1/messages/count_tokens", answer, methods=["POST"]),
    ]
    app = error_shapes.ShapedErrors(Starlette(routes=routes), "tiny")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://llm")


async def error_of(http: httpx.AsyncClient, method: str, path: str) -> tuple[int, Any]:
    given = await http.request(method, path)
    return given.status_code, given.json()["error"]


async def said(http: httpx.AsyncClient, path: str, status: int, document: Any) -> Any:
    """Return the answer's body where the engine's is `document`."""
    given = await http.post(path, json={"status": status, "document": document})
    assert given.status_code == status
    return given.json()


async def test_a_path_that_the_model_lacks_is_openais_error(http: httpx.AsyncClient) -> None:
    status, error = await error_of(http, "POST", "/v1/embeddings")
    assert (status, error["type"], error["code"]) == (404, "invalid_request_error", "not_found")
    assert "`tiny` does not serve /v1/embeddings" in error["message"]


async def test_a_wrong_method_and_a_broken_body_are_openais_errors(http: httpx.AsyncClient) -> None:
    given = await http.get("/v1/chat/completions")
    assert (given.status_code, given.headers["allow"]) == (405, "POST")
    assert given.json()["error"]["code"] == "method_not_allowed"
    status, error = await error_of(http, "POST", "/v1/chat/completions")
    assert (status, error["message"]) == (400, "There was an error parsing the body")


async def test_errors_of_anthropics_paths_have_its_form(http: httpx.AsyncClient) -> None:
    given = await http.post("/v1/messages")
    message = "There was an error parsing the body"
    error = {"type": "invalid_request_error", "message": message}
    assert given.json() == {"type": "error", "error": error}


@pytest.mark.parametrize(
    ("status", "document", "kind", "message"),
    [
        (400, VLLMS, "invalid_request_error", "max_tokens"),
        (400, OTHER_KIND, "invalid_request_error", "too long"),
        (500, VLLMS, "api_error", "max_tokens"),
        (503, {"error": "later"}, "overloaded_error", "later"),
        (418, [1], "invalid_request_error", "[1]"),
    ],
)
async def test_vllms_errors_on_anthropics_paths_get_its_form(
    http: httpx.AsyncClient, status: int, document: Any, kind: str, message: str
) -> None:
    given = await said(http, "/v1/messages/count_tokens", status, document)
    assert given == {"type": "error", "error": {"type": kind, "message": message}}


async def test_errors_in_the_right_form_are_passed_on(http: httpx.AsyncClient) -> None:
    whole = {"error": {"message": "own"}}
    assert await said(http, "/v1/said", 400, {"detail": whole}) == whole
    assert await said(http, "/v1/said", 400, VLLMS) == VLLMS
    right = {"type": "error", "error": {"type": "overloaded_error", "message": "x"}, "id": 7}
    assert await said(http, "/v1/messages/count_tokens", 503, right) == right


async def test_texts_and_lists_become_errors(http: httpx.AsyncClient) -> None:
    assert (await said(http, "/v1/said", 500, "Oh no"))["error"]["message"] == "Oh no"
    listed = await said(http, "/v1/said", 422, {"detail": [{"loc": 1}]})
    assert listed["error"]["message"] == '[{"loc":1}]'


async def test_good_answers_are_not_touched(http: httpx.AsyncClient) -> None:
    assert await said(http, "/v1/said", 200, {"detail": "fine"}) == {"detail": "fine"}
    given = await http.head("/v1/nowhere")
    assert (given.status_code, given.content) == (404, b"")
