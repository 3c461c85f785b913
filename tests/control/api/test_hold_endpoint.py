from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from starlette.requests import Request

from meshserve import errors, tasks
from meshserve.control.api import hold_endpoint
from meshserve.core.values import commands, events, llm_events
from meshserve.protocol import paths


class Stage:
    """The endpoint, its clients, and the events that it posts."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self.endpoint = hold_endpoint.HoldEndpoint(self.events.append)
        self.left = asyncio.Event()

    def hold(self, **query: Any) -> asyncio.Task[Any]:
        """Send a request whose client waits until `left` is set."""
        messages = [{"type": "http.request", "body": b""}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await self.left.wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": "http",
            "method": "POST",
            "path": paths.HOLD,
            "query_string": urlencode(query).encode(),
            "headers": [],
        }
        return tasks.spawn(self.endpoint.wait(Request(scope, receive)), "wait", is_awaited=True)


async def posted(stage: Stage, count: int) -> None:
    """Return when so many events have been posted."""
    while len(stage.events) < count:  # noqa: ASYNC110 - each turn of the loop brings them nearer
        await asyncio.sleep(0)


@pytest.fixture
async def stage() -> Stage:
    return Stage()


async def test_an_admitted_request_gets_200(stage: Stage) -> None:
    waiting = stage.hold(model="tiny llm", bytes="17")
    await posted(stage, 1)
    assert stage.events == [llm_events.RequestHeld("1", "tiny llm", 17)]
    assert not waiting.done()
    stage.endpoint.perform(commands.Admit("1"))
    assert (await waiting).status_code == 200
    assert len(stage.events) == 1


async def test_a_refused_request_gets_openais_503_with_the_wait(stage: Stage) -> None:
    waiting = stage.hold(model="l")
    await posted(stage, 1)
    stage.endpoint.perform(commands.TurnAway("1", "model 'l' is not ready: too many wait", 7.2))
    answer = await waiting
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "8")
    assert orjson.loads(answer.body)["error"] == {
        "message": "model 'l' is not ready: too many wait",
        "type": "server_error",
        "param": None,
        "code": "service_unavailable",
    }


async def test_a_request_whose_client_leaves_is_forgotten(stage: Stage) -> None:
    waiting = stage.hold(model="l")
    await posted(stage, 1)
    stage.left.set()
    assert (await waiting).status_code == hold_endpoint.CLIENT_CLOSED_REQUEST
    assert stage.events[-1] == llm_events.HeldRequestLeft("1")
    stage.endpoint.perform(commands.Admit("1"))


async def test_every_request_has_its_own_ticket(stage: Stage) -> None:
    waiting = [stage.hold(model="l") for _ in range(3)]
    await posted(stage, 3)
    stage.endpoint.perform(commands.Admit("2"))
    assert (await waiting[1]).status_code == 200
    assert [task.done() for task in waiting] == [False, True, False]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert stage.events[-2:] == [llm_events.HeldRequestLeft("1"), llm_events.HeldRequestLeft("3")]


@pytest.mark.parametrize(
    "query", [{}, {"model": ""}, {"model": "l", "bytes": "-1"}, {"model": "l", "bytes": "9" * 16}]
)
async def test_a_request_without_model_or_size_is_refused(
    stage: Stage, query: dict[str, str]
) -> None:
    with pytest.raises(errors.InvalidRequest):
        await stage.hold(**query)
    assert stage.events == []


async def test_a_refusal_on_anthropics_paths_has_its_form(stage: Any) -> None:
    waiting = stage.hold(model="tiny llm", bytes="17", api="anthropic")
    await posted(stage, 1)
    stage.endpoint.perform(commands.TurnAway("1", "full", 7.2))
    answer = await waiting
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "8")
    assert orjson.loads(answer.body) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "full"},
    }
