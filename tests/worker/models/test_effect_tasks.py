from __future__ import annotations

import asyncio
import functools

import pytest

from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model
from meshserve.worker.models import effect_tasks
from tests import support


async def nothing() -> None:
    await asyncio.sleep(0)


async def stumble() -> None:
    raise RuntimeError("a list is empty")


async def test_a_mistake_is_told_as_the_failure_of_the_effect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    emitted: list[ev.Event] = []
    running = effect_tasks.EffectTasks(emitted.append)
    id_ = model.ModelId("m", "1")
    running.spawn(stumble(), functools.partial(ev.FetchFailed, id_, 3))
    running.spawn(nothing(), functools.partial(ev.CopyLoadFailed, "key"))
    await support.wait_until_async(lambda: emitted)
    (failed,) = emitted
    assert isinstance(failed, ev.FetchFailed)
    assert (failed.id, failed.attempt) == (id_, 3)
    assert "a list is empty" in failed.error.message
    assert "copy effect failed" in caplog.text


async def test_what_runs_is_cancelled() -> None:
    emitted: list[ev.Event] = []
    running = effect_tasks.EffectTasks(emitted.append)
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running.spawn(wait())
    await asyncio.sleep(0)
    await running.cancel()
    assert ended.is_set()
    assert emitted == []
