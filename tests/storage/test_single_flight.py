from __future__ import annotations

import asyncio

import pytest

from meshserve import tasks
from meshserve.storage import single_flight


class Work:
    def __init__(self) -> None:
        self.begun = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        await self.gate.wait()
        return self.begun


async def test_work_is_done_once_for_all_who_wait() -> None:
    work, shared = Work(), single_flight.SingleFlight[int]()
    waiting = [tasks.spawn(shared.join("a", work), "join", is_awaited=True) for _ in range(5)]
    other = tasks.spawn(shared.join("b", Work()), "join", is_awaited=True)
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*waiting) == [1] * 5
    assert not other.done()
    await shared.close()
    assert other.cancelled()


async def test_work_that_ended_is_begun_anew() -> None:
    work, shared = Work(), single_flight.SingleFlight[int]()
    work.gate.set()
    assert [await shared.join("a", work), await shared.join("a", work)] == [1, 2]


async def test_work_goes_on_when_all_left() -> None:
    work, shared = Work(), single_flight.SingleFlight[int]()
    waiting = tasks.spawn(shared.join("a", work), "join", is_awaited=True)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    later = tasks.spawn(shared.join("a", work), "join", is_awaited=True)
    work.gate.set()
    assert await later == 1


async def test_all_who_wait_hear_of_a_failure() -> None:
    async def fail() -> None:
        raise OSError("broken")

    shared = single_flight.SingleFlight[None]()
    heard = await asyncio.gather(
        *(shared.join("a", fail) for _ in range(3)), return_exceptions=True
    )
    assert [str(error) for error in heard] == ["broken"] * 3
    with pytest.raises(OSError, match="broken"):
        await shared.join("a", fail)
