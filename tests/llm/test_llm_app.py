from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from meshserve import tasks
from meshserve.core.interfaces import llm_engine
from meshserve.llm import llm_app
from tests import support


class EngineApp:
    """An engine's app that answers with the path, once it may."""

    def __init__(self) -> None:
        self.seen: list[tuple[llm_engine.Scope, llm_engine.Receive, llm_engine.Send]] = []
        self.failure = ""
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(
        self, scope: llm_engine.Scope, receive: llm_engine.Receive, send: llm_engine.Send
    ) -> None:
        self.seen.append((scope, receive, send))
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.fixture
def inner() -> EngineApp:
    return EngineApp()


@pytest.fixture
def outer(inner: EngineApp) -> llm_app.LlmApp:
    return llm_app.LlmApp(inner, "tiny", lambda: inner.failure)


@pytest.fixture
async def client(outer: llm_app.LlmApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(outer), base_url="http://llm"
    ) as http:
        yield http


async def test_requests_reach_the_engine_untouched(outer: llm_app.LlmApp, inner: EngineApp) -> None:
    scope: llm_engine.Scope = {"path": "/v1/completions"}

    async def receive() -> llm_engine.Scope:
        return {}

    async def send(_: object) -> None:
        pass

    await outer(scope, receive, send)
    assert [seen[:2] for seen in inner.seen] == [(scope, receive)]
    assert (outer.requests, outer.in_flight) == (1, 0)


async def test_health_checks_do_not_reach_the_engine(
    client: httpx.AsyncClient, outer: llm_app.LlmApp, inner: EngineApp
) -> None:
    assert (await client.get("/healthz")).text == "ok"
    outer.is_draining = True
    assert (await client.get("/healthz")).status_code == 503
    assert inner.seen == []


async def test_requests_are_answered_while_it_drains(
    client: httpx.AsyncClient, outer: llm_app.LlmApp
) -> None:
    outer.is_draining = True
    assert (await client.get("/v1/models")).text == "/v1/models"


async def test_a_refusal_has_the_shape_of_openais_errors(
    client: httpx.AsyncClient, outer: llm_app.LlmApp, inner: EngineApp
) -> None:
    outer.refusal = "it has failed"
    answer = await client.post("/v1/completions")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, str(llm_app.RETRY_S))
    assert answer.json()["error"] == {
        "message": "it has failed",
        "type": "service_unavailable",
        "param": None,
        "code": "engine_unavailable",
    }
    assert (await client.get("/healthz")).status_code == 503
    assert inner.seen == []


async def test_probes_are_not_counted_as_requests(
    client: httpx.AsyncClient, outer: llm_app.LlmApp
) -> None:
    assert (await client.get("/metrics")).text == "/metrics"
    assert outer.requests == 0


async def test_it_is_idle_when_the_last_request_is_answered(
    client: httpx.AsyncClient, outer: llm_app.LlmApp, inner: EngineApp
) -> None:
    inner.may_answer.clear()
    requests = [
        tasks.spawn(client.get("/a"), "get", is_awaited=True),
        tasks.spawn(client.get("/b"), "get", is_awaited=True),
    ]
    idle = tasks.spawn(outer.wait_until_idle(), "wait until idle", is_awaited=True)
    await support.wait_until_async(lambda: outer.in_flight == 2)
    assert not idle.done()
    inner.may_answer.set()
    await asyncio.gather(*requests)
    await idle
    assert outer.in_flight == 0


async def test_a_request_after_the_engines_end_is_refused_at_once(
    inner: EngineApp, client: httpx.AsyncClient
) -> None:
    inner.failure = "it was killed"
    answer = await client.post("/v1/completions")
    assert (answer.status_code, answer.json()["error"]["message"], inner.seen) == (
        503,
        "it was killed",
        [],
    )
    assert int(answer.headers["retry-after"]) > 0
