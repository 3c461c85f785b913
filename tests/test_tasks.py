from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from meshserve import tasks


async def fail() -> None:
    raise ValueError("no such thing")


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_spawned_task_returns_its_result_under_its_name() -> None:
    task = tasks.spawn(asyncio.sleep(0, "done"), "nap")
    assert task.get_name() == "nap"
    assert await task == "done"


async def test_a_spawned_task_survives_garbage_collection_without_references() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    async def wait() -> None:
        await future
        ended.set()

    tasks.spawn(wait(), "forgotten")
    await asyncio.sleep(0)
    gc.collect()
    future.set_result(None)
    await ended.wait()


async def test_a_failure_is_logged_with_the_tasks_name(caplog: pytest.LogCaptureFixture) -> None:
    await asyncio.wait([tasks.spawn(fail(), "watch")])
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "watch" in record.getMessage()
    assert record.exc_info is not None


async def test_an_awaited_failure_reaches_the_caller_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ValueError, match="no such thing"):
        await tasks.spawn(fail(), "load", is_awaited=True)
    assert caplog.records == []


async def test_a_cancelled_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    task = tasks.spawn(asyncio.sleep(60), "nap")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert caplog.records == []


async def test_a_kept_loop_begins_again_after_a_mistake(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.0)
    outcomes = [ValueError("no such thing"), ValueError("again"), None]

    async def loop() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    await tasks.keep(loop, "tick")
    assert outcomes == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "tick" in caplog.text


async def test_a_kept_loop_ends_when_it_is_cancelled() -> None:
    task = tasks.spawn(tasks.keep(wait_for_ever, "tick"), "tick")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
