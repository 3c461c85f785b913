from __future__ import annotations

import asyncio

from meshserve import tasks
from meshserve.testing import manual_clock


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock = manual_clock.ManualClock()
    woken: list[tuple[float, float]] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.now_s()))

    async with asyncio.TaskGroup() as group:
        for seconds in (3.0, 1.0, 2.0):
            group.create_task(sleep(seconds))
        await clock.advance(1.5)
        assert woken == [(1.0, 1.0)]
        await clock.advance(10.0)
    assert woken == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
    assert clock.now_s() == 11.5


async def test_who_sleeps_again_wakes_again() -> None:
    clock = manual_clock.ManualClock()
    times: list[float] = []

    async def tick() -> None:
        while len(times) < 3:
            await clock.sleep(1.0)
            times.append(clock.now_s())

    task = tasks.spawn(tick(), "tick", is_awaited=True)
    await clock.advance(5.0)
    await task
    assert times == [1.0, 2.0, 3.0]


async def test_a_sleeper_that_was_cancelled_holds_nobody_up() -> None:
    clock = manual_clock.ManualClock()
    task = tasks.spawn(clock.sleep(1.0), "sleep", is_awaited=True)
    await asyncio.sleep(0)
    task.cancel()
    await clock.advance(2.0)
    assert clock.now_s() == 2.0
