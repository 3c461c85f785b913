"""A run that does not end: its callers are answered, it is counted, and others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve import errors, tasks
from meshserve.core.values import model
from meshserve.worker.models import model_host, run_watch
from tests import support
from tests.worker import helpers
from tests.worker.models import hanging
from tests.worker.models.test_isolated_copies import answer, process_of

Hosting = Callable[..., model_host.ModelHost]
LATE = "Deadline Exceeded: "


@pytest.fixture
def end(tmp_path: Path) -> hanging.RunsEnd:
    return hanging.RunsEnd(tmp_path / "end")


@pytest.fixture
async def host(
    hosting: Hosting, storage: helpers.FakeStorage, end: hanging.RunsEnd
) -> model_host.ModelHost:
    host = hosting()
    specs: dict[str, dict[str, Any]] = {"limited": {"predict_timeout_s": 0.5}, "free": {}}
    specs["alone"] = {"isolate": "process", "predict_timeout_s": 0.5}
    options = {"end": str(end.path)}
    helpers.apply(
        host,
        *helpers.declared(
            *(
                helpers.spec(name, storage.put("m", hanging.SOURCE), options=options, **fields)
                for name, fields in specs.items()
            ),
        ),
    )
    return host


def key_of(host: model_host.ModelHost, name: str) -> str:
    key = host.residency.find_ready(model.ModelId(name))
    assert key is not None
    return key


async def test_a_run_over_its_models_limit_is_answered_and_then_counted(
    host: model_host.ModelHost, end: hanging.RunsEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_watch, "ABANDONED_S", 0.3)
    async with hanging.sweeping(host, end):
        await answer(host, "limited")
        key = key_of(host, "limited")
        asked = tasks.spawn(answer(host, "limited", hanging.HANG), "asked", is_awaited=True)
        await support.wait_until_async(lambda: host.watch.is_busy)
        # It waits behind the run that hangs, and is answered by the copy in a process of its own.
        waiting = tasks.spawn(answer(host, "limited", 2.0), "waiting", is_awaited=True)
        with pytest.raises(errors.DeadlineExceeded, match=f"{LATE}.* 0.5 s .predict_timeout_s"):
            await asked
        np.testing.assert_array_equal(await waiting, [[6.0, 6.0]])
        assert {key: len(runs) for key, runs in host.watch.hung.items()} == {key: 1}
        assert process_of(host, "limited").death is None
        (hung,) = host.trials.ailing.hung()
        shown = (hung.key, hung.ids, hung.runs, hung.total)
        assert shown == (key, (model.ModelId("limited"),), 1, 1)
        # The copy in the worker is not used again as long as its run hangs.
        host.trials._acquit(key)
        assert process_of(host, "limited").death is None
    assert not host.watch.hung
    await support.wait_until_async(lambda: key not in host.residency.copies)


async def test_a_model_without_a_limit_takes_its_time(
    host: model_host.ModelHost, end: hanging.RunsEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_watch, "ABANDONED_S", 0.3)
    async with hanging.sweeping(host, end):
        asked = tasks.spawn(answer(host, "free", hanging.HANG), "asked", is_awaited=True)
        await support.wait_until_async(lambda: host.watch.is_busy)
        await asyncio.sleep(1.0)  # far beyond all limits of the others
        assert not asked.done()
        end.let()
        np.testing.assert_array_equal(await asked, [[198.0, 198.0]])
        assert not host.watch.hung


async def test_a_callers_deadline_passes_while_the_model_runs(
    host: model_host.ModelHost, end: hanging.RunsEnd
) -> None:
    async with hanging.sweeping(host, end):
        await answer(host, "free")
        with pytest.raises(errors.DeadlineExceeded, match=f"{LATE}it passed while the model ran"):
            await answer(host, "free", hanging.HANG, seconds=0.4)
        # Of one that waits for its turn behind it, too.
        with pytest.raises(errors.DeadlineExceeded, match=f"{LATE}the request waited for its turn"):
            await answer(host, "free", 1.0, seconds=0.4)
        assert host.residency.copies[key_of(host, "free")].leases == 1
        end.let()
        np.testing.assert_array_equal(await answer(host, "free", 2.0), [[6.0, 6.0]])


async def test_a_run_over_its_limit_ends_a_process_of_its_own(
    host: model_host.ModelHost, end: hanging.RunsEnd
) -> None:
    async with hanging.sweeping(host, end):
        await answer(host, "alone")
        process = process_of(host, "alone")
        with pytest.raises(errors.DeadlineExceeded, match=f"{LATE}.* 0.5 s .predict_timeout_s"):
            await answer(host, "alone", hanging.HANG)
        await support.wait_until_async(lambda: process.death is not None)
        assert "a run took longer than 0.5 s" in str(process.death)
        np.testing.assert_array_equal(await answer(host, "alone", 2.0), [[6.0, 6.0]])
        assert not host.watch.hung


async def test_a_model_that_is_always_slow_does_not_hang(
    host: model_host.ModelHost, end: hanging.RunsEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_watch, "ABANDONED_S", 0.3)
    async with hanging.sweeping(host, end):
        await answer(host, "free")
        batcher: Any = host._effects.resident(key_of(host, "free")).batcher
        batcher._call_s = 60.0
        with pytest.raises(errors.DeadlineExceeded):
            await answer(host, "free", hanging.HANG, seconds=0.1)
        await asyncio.sleep(1.0)  # three times as long as the others are given
        assert not host.watch.hung


async def test_hung_runs_are_counted_by_copy_until_they_end() -> None:
    watch = run_watch.RunWatch()
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))

    class Runs:
        key = "a"

        def waiting(self) -> list[model.ModelId]:
            return []

        def sweep(self, now_s: float) -> bool:
            watch.count_hung("a" if now_s < 2 else "b", first if now_s < 2 else second)
            return True

    runs = Runs()
    watch.add(runs)
    assert [set(watch.sweep(now_s)) for now_s in (1.0, 2.0)] == [{"a"}, {"b"}]
    watch.discard(runs)
    assert (watch.is_busy, len(watch.sweep(3.0))) == (False, 0)
    # What has run since the last time counts, also if it has ended.
    assert [set(watch.take_ran()) for _ in range(2)] == [{"a"}, set()]
    first.set_result(None)
    await asyncio.sleep(0)
    assert set(watch.hung) == {"b"}
