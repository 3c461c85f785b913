from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve import tasks
from meshserve.control import serial_queue


class Performed:
    def __init__(self) -> None:
        self.commands: list[object] = []
        self.gate = asyncio.Event()

    async def __call__(self, command: int | str) -> None:
        await self.gate.wait()
        self.commands.append(command)


@pytest.fixture
async def performed() -> Performed:
    return Performed()


@pytest.fixture
async def queue(performed: Performed) -> AsyncIterator[serial_queue.SerialQueue[Any]]:
    new_queue = serial_queue.SerialQueue("test", performed)
    yield new_queue
    new_queue.clear()


async def test_commands_are_performed_in_order(
    queue: serial_queue.SerialQueue[Any], performed: Performed
) -> None:
    performed.gate.set()
    for number in range(5):
        queue.put(number)
    await queue.wait_until_settled()
    assert performed.commands == [0, 1, 2, 3, 4]


async def test_a_queue_goes_on_after_it_was_idle(
    queue: serial_queue.SerialQueue[Any], performed: Performed
) -> None:
    performed.gate.set()
    for number in range(2):
        queue.put(number)
        await queue.wait_until_settled()
    assert performed.commands == [0, 1]


async def test_an_idle_queue_is_settled(queue: serial_queue.SerialQueue[Any]) -> None:
    await asyncio.wait_for(queue.wait_until_settled(), 1)


async def test_what_is_put_once_is_not_put_twice(
    queue: serial_queue.SerialQueue[Any], performed: Performed
) -> None:
    for _ in range(3):
        queue.put("a", is_once=True)
    performed.gate.set()
    await queue.wait_until_settled()
    assert performed.commands == ["a"]


async def test_what_is_being_performed_is_put_once_more(
    queue: serial_queue.SerialQueue[Any], performed: Performed
) -> None:
    queue.put("a", is_once=True)
    await asyncio.sleep(0)
    queue.put("a", is_once=True)
    performed.gate.set()
    await queue.wait_until_settled()
    assert performed.commands == ["a", "a"]


async def test_a_cleared_queue_forgets_and_lets_waiters_go(
    queue: serial_queue.SerialQueue[Any], performed: Performed
) -> None:
    queue.put(1)
    queue.put(2)
    settled = tasks.spawn(queue.wait_until_settled(), "wait until settled", is_awaited=True)
    await asyncio.sleep(0)
    queue.clear()
    await asyncio.wait_for(settled, 1)
    performed.gate.set()
    queue.put(3)
    await queue.wait_until_settled()
    assert performed.commands == [3]


async def test_what_runs_in_the_background_ends_with_the_queue(
    queue: serial_queue.SerialQueue[Any],
) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    queue.run_in_background(work())
    await asyncio.sleep(0)
    queue.clear()
    await asyncio.wait_for(ended.wait(), 1)


async def test_an_interrupted_command_ends_before_the_next_begins() -> None:
    order, started = [], asyncio.Event()

    async def perform(command: str) -> None:
        order.append(f"begin {command}")
        started.set()
        try:
            if command == "start":
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append(f"end {command}")

    new_queue = serial_queue.SerialQueue("test", perform)
    new_queue.put("start")
    new_queue.put("sleep")
    await started.wait()
    new_queue.interrupt()
    new_queue.put("stop")
    await new_queue.wait_until_settled()
    assert order == ["begin start", "end start", "begin stop", "end stop"]


async def test_a_command_that_raises_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    performed = []

    async def perform(command: str) -> None:
        if command == "bad":
            raise AssertionError("a bug")
        performed.append(command)

    new_queue = serial_queue.SerialQueue("test", perform)
    for command in ("bad", "good"):
        new_queue.put(command)
    await new_queue.wait_until_settled()
    assert performed == ["good"]
    assert "a bug" in caplog.text
