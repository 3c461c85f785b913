from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from meshserve.llm import model_names

LLM, ALIAS, ADAPTER = "org/tiny", 'prod "é"', "sql"
IN_ENGINE = "sql@1f"
QUOTED = '"model":"org/tiny"'
NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)


async def chat(request: Request) -> Response:
    """Answer with the model and the text of the request, as vLLM writes them."""
    asked = json.loads(await request.body())
    model, text = asked["model"], asked.get("text", "")
    if asked.get("status"):
        return JSONResponse({"error": {"message": f"`{model}`"}, "model": model}, asked["status"])
    if not asked.get("stream"):
        return JSONResponse({"id": "1", "model": model, "choices": [{"text": text}]})

    async def events() -> AsyncIterator[bytes]:
        for event in ({"model": model, "text": text}, {"response": {"model": model}}):
            line = f"data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
            yield line[:12]
            yield line[12:]
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def transcribe(request: Request) -> Response:
    async with request.form() as form:
        file = form["file"]
        assert isinstance(file, UploadFile)
        return JSONResponse({"model": form["model"], "bytes": len(await file.read())})


async def show(request: Request) -> Response:
    return JSONResponse(
        {"query": str(request.query_params), "body": (await request.body()).decode("latin-1")}
    )


@pytest.fixture
def http() -> httpx.AsyncClient:
    routes = [
        Route("/chat", chat, methods=["POST"]),
        Route("/transcribe", transcribe, methods=["POST"]),
        Route("/show", show, methods=["GET", "POST"]),
    ]
    app = model_names.RenamedModels(Starlette(routes=routes), LLM)
    app.adapters = {ADAPTER: IN_ENGINE}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://llm")


def headers_of(name: str) -> dict[str, Any]:
    """Return the headers that a gateway adds to a request for this name."""
    alias = {"x-mesh-is-alias": "yes"} if name == ALIAS else {}
    return {"x-mesh-model": name.encode(), **alias}


async def ask(http: httpx.AsyncClient, name: str, **fields: Any) -> httpx.Response:
    body = {"model": name, **fields}
    return await http.post("/chat", json=body, headers=headers_of(name))


@pytest.mark.parametrize("name", [LLM, ALIAS, ADAPTER])
async def test_an_answer_has_the_name_that_was_called(http: httpx.AsyncClient, name: str) -> None:
    answer = await ask(http, name, text=QUOTED)
    assert answer.json() == {"id": "1", "model": name, "choices": [{"text": QUOTED}]}
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("name", [LLM, ALIAS, ADAPTER])
async def test_each_event_of_a_stream_has_it_too(http: httpx.AsyncClient, name: str) -> None:
    answer = await ask(http, name, stream=True, text=QUOTED)
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events.pop() == "[DONE]"
    expected = [{"model": name, "text": QUOTED}, {"response": {"model": name}}]
    assert [json.loads(event) for event in events] == expected


async def test_an_adapter_that_the_replica_lacks_is_not_answered_by_the_model(
    http: httpx.AsyncClient,
) -> None:
    body = {"model": "gone"}
    answer = await http.post("/chat", json=body, headers={"x-mesh-model": "gone"})
    assert answer.json()["model"] == "gone"


async def test_without_a_gateways_headers_nothing_is_touched(http: httpx.AsyncClient) -> None:
    assert (await http.post("/chat", json={"model": "any"})).json()["model"] == "any"


async def test_a_form_with_a_file_gets_the_name(http: httpx.AsyncClient) -> None:
    file = {"file": ("a.wav", b"\r\n--x--\r\n" * 9)}
    answer = await http.post(
        "/transcribe", data={"model": ALIAS}, files=file, headers=headers_of(ALIAS)
    )
    assert answer.json() == {"model": ALIAS, "bytes": 81}


async def test_a_request_without_a_body_stays_without_one(http: httpx.AsyncClient) -> None:
    answer = await http.get("/show?model=x", headers=headers_of(ALIAS))
    assert answer.json() == {"query": "model=x", "body": ""}


@pytest.mark.parametrize("body", [b'{"model": "a"', b"[1]", b"\xff"])
async def test_a_body_that_is_no_object_stays_as_it_is(
    http: httpx.AsyncClient, body: bytes
) -> None:
    answer = await http.post("/show", content=body, headers=headers_of(ALIAS))
    assert answer.json()["body"] == body.decode("latin-1")


@given(NAMES, NAMES, st.text())
def test_a_name_is_found_as_a_key_and_never_inside_of_a_text(
    known: str, called: str, text: str
) -> None:
    for is_ascii in (True, False):
        for separators in ((",", ":"), (", ", ": ")):
            sent: list[Any] = []
            answer = model_names.RenamedAnswer(known, called, sent.append)  # type: ignore[arg-type]
            document = {"model": known, "text": f'{text}"model":"{known}"', "x": {"model": known}}
            written = json.dumps(document, ensure_ascii=is_ascii, separators=separators)
            if not is_ascii and any("\ud800" <= character <= "\udfff" for character in written):
                continue
            assert json.loads(answer.translated(written.encode())) == {
                "model": called,
                "text": document["text"],
                "x": {"model": called},
            }
