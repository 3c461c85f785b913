from __future__ import annotations

import asyncio

from meshserve.testing import manual_clock


async def test_sleepers_wake_in_the_order_of_their_times():
    clock, woken = manual_clock.ManualClock(), []

    async def sleep(seconds):
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


async def test_who_sleeps_again_wakes_again():
    clock, times = manual_clock.ManualClock(), []

    async def tick():
        while len(times) < 3:
            await clock.sleep(1.0)
            times.append(clock.now_s())

    task = asyncio.ensure_future(tick())
    await clock.advance(5.0)
    await task
    assert times == [1.0, 2.0, 3.0]


async def test_a_sleeper_that_was_cancelled_holds_nobody_up():
    clock = manual_clock.ManualClock()
    task = asyncio.ensure_future(clock.sleep(1.0))
    await asyncio.sleep(0)
    task.cancel()
    await clock.advance(2.0)
    assert clock.now_s() == 2.0
