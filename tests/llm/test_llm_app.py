from __future__ import annotations

import asyncio

import httpx
import pytest

from meshserve.llm import llm_app


class Inner:
    """An engine's app that answers with what it saw, once it may."""

    def __init__(self):
        self.seen = []
        self.failure = ""
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope, receive, send):
        self.seen.append((scope, receive, send))
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.fixture
def inner():
    return Inner()


@pytest.fixture
def outer(inner):
    return llm_app.LlmApp(inner, lambda: inner.failure)


@pytest.fixture
async def client(outer):
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(outer), base_url="http://llm"
    ) as made:
        yield made


async def test_it_lets_through_what_came_untouched(outer, inner):
    said = ({"path": "/v1/completions"}, object(), lambda _: asyncio.sleep(0))
    await outer(*said)
    assert inner.seen == [said]
    assert (outer.requests, outer.in_flight) == (1, 0)


async def test_its_health_is_its_own(client, outer, inner):
    assert (await client.get("/healthz")).text == "ok"
    outer.is_draining = True
    assert (await client.get("/healthz")).status_code == 503
    assert inner.seen == []


async def test_while_it_drains_it_answers(client, outer):
    outer.is_draining = True
    assert (await client.get("/v1/models")).text == "/v1/models"


async def test_a_refusal_is_in_openai_s_shape(client, outer, inner):
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


async def test_probes_are_no_requests(client, outer):
    assert (await client.get("/metrics")).text == "/metrics"
    assert outer.requests == 0


async def test_idle_is_when_the_last_request_is_answered(client, outer, inner):
    inner.may_answer.clear()
    asked = [asyncio.ensure_future(client.get("/a")), asyncio.ensure_future(client.get("/b"))]
    idle = asyncio.ensure_future(outer.wait_until_idle())
    await asyncio.sleep(0.01)
    assert outer.in_flight == 2
    assert not idle.done()
    inner.may_answer.set()
    await asyncio.gather(*asked)
    await idle
    assert outer.in_flight == 0


async def test_whoever_comes_after_the_engine_s_end_is_sent_away_before_anybody_has_noticed(
    inner, client
):
    inner.failure = "it was killed"
    answer = await client.post("/v1/completions")
    assert (answer.status_code, answer.json()["error"]["message"], inner.seen) == (
        503,
        "it was killed",
        [],
    )
    assert int(answer.headers["retry-after"]) > 0
