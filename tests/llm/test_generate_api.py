from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from meshserve.llm import generate_api, llm_app

ASKED: list[dict[str, Any]] = []
FAULT = {"error": {"message": "max_tokens is too large", "type": "invalid_request_error"}}


async def complete(request: Request) -> Response:
    """Answer as vLLM's completions do: a word in each event of a stream."""
    asked = json.loads(await request.body())
    ASKED.append(asked)
    if asked.get("max_tokens", 0) > 100:
        return JSONResponse(FAULT, 400)
    if not asked["stream"]:
        return JSONResponse({"choices": [{"text": " is Paris"}]})

    async def events() -> AsyncIterator[bytes]:
        for number, text in enumerate((" is", " Pa", "ris")):
            event = f"data: {json.dumps({'choices': [{'text': text}]})}\n\n".encode()
            # The second one comes in two pieces.
            cut = 10 if number == 1 else len(event)
            yield event[:cut]
            yield event[cut:]
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@pytest.fixture
def http() -> httpx.AsyncClient:
    ASKED.clear()
    engine = Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])
    app = llm_app.LlmApp(engine, "tiny", lambda: "")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://llm")


@pytest.mark.parametrize("name", ["tiny", "org/tiny", "org%2Ftiny"])
async def test_a_text_is_generated(http: httpx.AsyncClient, name: str) -> None:
    body = {"id": "7", "text_input": "France", "parameters": {"max_tokens": 5}, "seed": 1}
    answer = await http.post(f"/v2/models/{name}/generate", json=body)
    bare = name.replace("%2F", "/")
    assert answer.json() == {"model_name": bare, "model_version": "1", "text_output": " is Paris"}
    expected = {"model": bare, "prompt": "France", "max_tokens": 5, "seed": 1, "stream": False}
    assert [expected] == ASKED


async def test_a_text_is_streamed_in_whole_events(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v2/models/tiny/generate_stream", json={"text_input": "France"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert [event["text_output"] for event in events] == [" is", " Pa", "ris"]
    assert {event["model_name"] for event in events} == {"tiny"}


@pytest.mark.parametrize("verb", ["generate", "generate_stream"])
async def test_errors_have_the_protocols_form(http: httpx.AsyncClient, verb: str) -> None:
    path = f"/v2/models/tiny/{verb}"
    for content, words in (
        (b"{", "the body is not JSON"),
        (b"[]", "with a text_input"),
        (b'{"text_input": 1}', "with a text_input"),
        (b'{"text_input": "a", "parameters": 3}', "parameters must be an object"),
        (b'{"text_input": "a", "max_tokens": 101}', "max_tokens is too large"),
    ):
        answer = await http.post(path, content=content)
        assert answer.status_code == 400
        assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v2/models/tiny/generate"), ("POST", "/v2/models/generate"), ("POST", "/v1/chat")],
)
def test_other_paths_are_the_engines(method: str, path: str) -> None:
    app: Any = None
    assert generate_api.handler(app, {"method": method, "path": path}) is None
