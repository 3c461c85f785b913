from __future__ import annotations

import asyncio

import pytest

from meshserve.control import serial_queue


class Performed:
    def __init__(self):
        self.commands = []
        self.gate = asyncio.Event()

    async def __call__(self, command):
        await self.gate.wait()
        self.commands.append(command)


@pytest.fixture
async def performed():
    return Performed()


@pytest.fixture
async def lane(performed):
    made = serial_queue.SerialQueue("test", performed)
    yield made
    made.clear()


async def test_commands_are_performed_in_order(lane, performed):
    performed.gate.set()
    for number in range(5):
        lane.put(number)
    await lane.wait_until_settled()
    assert performed.commands == [0, 1, 2, 3, 4]


async def test_a_lane_goes_on_after_it_was_idle(lane, performed):
    performed.gate.set()
    for number in range(2):
        lane.put(number)
        await lane.wait_until_settled()
    assert performed.commands == [0, 1]


async def test_an_idle_lane_is_settled(lane):
    await asyncio.wait_for(lane.wait_until_settled(), 1)


async def test_what_is_put_once_is_not_put_twice(lane, performed):
    for _ in range(3):
        lane.put("a", is_once=True)
    performed.gate.set()
    await lane.wait_until_settled()
    assert performed.commands == ["a"]


async def test_what_is_being_performed_is_put_once_more(lane, performed):
    lane.put("a", is_once=True)
    await asyncio.sleep(0)
    lane.put("a", is_once=True)
    performed.gate.set()
    await lane.wait_until_settled()
    assert performed.commands == ["a", "a"]


async def test_a_cleared_lane_forgets_and_lets_waiters_go(lane, performed):
    lane.put(1)
    lane.put(2)
    settled = asyncio.ensure_future(lane.wait_until_settled())
    await asyncio.sleep(0)
    lane.clear()
    await asyncio.wait_for(settled, 1)
    performed.gate.set()
    lane.put(3)
    await lane.wait_until_settled()
    assert performed.commands == [3]


async def test_what_runs_aside_ends_with_the_lane(lane):
    ended = asyncio.Event()

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    lane.aside(work())
    await asyncio.sleep(0)
    lane.clear()
    await asyncio.wait_for(ended.wait(), 1)
