from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshserve.llm import error_handlers


async def refuse(_: Request) -> Response:
    raise HTTPException(400, "There was an error parsing the body")


async def refuse_fully(_: Request) -> Response:
    # Starlette's type says str, FastAPI's takes anything.
    raise HTTPException(400, {"error": {"message": "own"}})  # type: ignore[arg-type]


@pytest.fixture
def http() -> httpx.AsyncClient:
    routes = [
        Route("/v1/chat/completions", refuse, methods=["POST"]),
        Route("/v1/messages", refuse, methods=["POST"]),
        Route("/v1/own", refuse_fully, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    error_handlers.install(app, "tiny")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://llm")


async def error_of(http: httpx.AsyncClient, method: str, path: str) -> tuple[int, Any]:
    answer = await http.request(method, path)
    return answer.status_code, answer.json()["error"]


async def test_a_path_that_the_model_lacks_is_openais_error(http: httpx.AsyncClient) -> None:
    status, error = await error_of(http, "POST", "/v1/embeddings")
    assert (status, error["type"], error["code"]) == (404, "invalid_request_error", "not_found")
    assert "`tiny` does not serve /v1/embeddings" in error["message"]


async def test_a_wrong_method_and_a_broken_body_are_openais_errors(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "method_not_allowed"
    status, error = await error_of(http, "POST", "/v1/chat/completions")
    assert (status, error["message"]) == (400, "There was an error parsing the body")


async def test_errors_of_anthropics_paths_have_its_form(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/messages")
    assert answer.json() == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "There was an error parsing the body",
        },
    }


async def test_an_engines_own_body_is_passed_on(http: httpx.AsyncClient) -> None:
    assert await error_of(http, "POST", "/v1/own") == (400, {"message": "own"})
