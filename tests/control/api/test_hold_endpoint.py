from __future__ import annotations

import asyncio

import orjson
import pytest

from meshserve import errors
from meshserve.control.api import hold_endpoint, http_messages
from meshserve.core.values import commands, events
from meshserve.protocol import paths


class Stage:
    """A room, its clients, and what the mesh hears."""

    def __init__(self):
        self.events = []
        self.room = hold_endpoint.HoldEndpoint(self.events.append)
        self.left = asyncio.Event()

    def come(self, **query):
        return asyncio.ensure_future(
            self.room.wait(
                http_messages.HttpRequest("POST", paths.HOLD, query, [], b""), self._receive
            )
        )

    async def _receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
async def stage():
    return Stage()


async def test_one_that_is_let_through_gets_200(stage):
    waiting = stage.come(model="tiny llm", bytes="17")
    await asyncio.sleep(0)
    assert stage.events == [events.RequestHeld("1", "tiny llm", 17)]
    assert not waiting.done()
    stage.room.perform(commands.Admit("1"))
    assert await waiting == http_messages.HttpAnswer()
    assert len(stage.events) == 1


async def test_one_that_is_turned_away_gets_openai_s_503_with_the_wait(stage):
    waiting = stage.come(model="l")
    await asyncio.sleep(0)
    stage.room.perform(commands.TurnAway("1", "model 'l' is not ready: too many wait", 7.2))
    answer = await waiting
    assert (answer.status, (b"retry-after", b"8") in answer.headers) == (503, True)
    assert orjson.loads(answer.body)["error"] == {
        "message": "model 'l' is not ready: too many wait",
        "type": "server_error",
        "param": None,
        "code": "service_unavailable",
    }


async def test_one_whose_client_leaves_is_dropped(stage):
    waiting = stage.come(model="l")
    await asyncio.sleep(0)
    stage.left.set()
    assert await waiting is None
    assert stage.events[-1] == events.HeldRequestLeft("1")
    stage.room.perform(commands.Admit("1"))


async def test_every_one_has_a_ticket_of_its_own(stage):
    waiting = [stage.come(model="l") for _ in range(3)]
    await asyncio.sleep(0)
    stage.room.perform(commands.Admit("2"))
    assert (await waiting[1]).status == 200
    assert [task.done() for task in waiting] == [False, True, False]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert stage.events[-2:] == [events.HeldRequestLeft("1"), events.HeldRequestLeft("3")]


@pytest.mark.parametrize(
    "query", [{}, {"model": ""}, {"model": "l", "bytes": "-1"}, {"model": "l", "bytes": "9" * 16}]
)
async def test_what_nobody_can_weigh_is_refused(stage, query):
    with pytest.raises(errors.InvalidRequest):
        await stage.come(**query)
    assert stage.events == []
