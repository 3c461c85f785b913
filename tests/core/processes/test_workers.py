from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meshserve.core.processes import reconcile, workers
from meshserve.core.values import (
    catalog,
    catalog_sync,
    commands,
    containment,
    desired,
    events,
    model,
    reports,
)
from tests.core import world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 1)
POOL = world.pool(workers=2)


def orders(
    workers_: workers.Workers, pool: desired.PoolSettings = POOL, now_s: float = 0.0
) -> list[tuple[str, str]]:
    """What reconciling orders: the commands' names and their workers."""
    workers_._out.clear()
    workers_.reconcile((pool,), now_s)
    return [
        (type(command).__name__, command.worker_id)
        for command in workers_._out
        if isinstance(command, commands.WorkerCommand)
    ]


def sent(
    workers_: workers.Workers,
    send: Callable[..., Any],
    *args: object,
    worker_id: str = "",
) -> list[catalog_sync.SyncStep]:
    """The steps that `send` sends, to all workers or to one."""
    workers_._out.clear()
    send(*args)
    return [
        command.step
        for command in workers_._out
        if isinstance(command, commands.SendChanges) and worker_id in ("", command.worker_id)
    ]


def bring_up(workers_: workers.Workers, worker_id: str, pid: int = 1) -> None:
    worker = workers_.started(events.WorkerStarted(worker_id, ENDPOINT, pid))
    for step in sent(workers_, workers_.send_full, worker, ()):
        workers_.synced(events.WorkerSynced(worker_id, step.revision))


@pytest.fixture
def running() -> workers.Workers:
    fresh = workers.Workers([])
    orders(fresh)
    for worker_id in POOL.worker_ids():
        bring_up(fresh, worker_id)
    fresh.changed.clear()
    return fresh


def test_missing_workers_are_started() -> None:
    assert orders(workers.Workers([])) == [
        ("StartWorker", "default-0"),
        ("StartWorker", "default-1"),
    ]


def test_a_worker_is_ready_once_it_has_a_full_catalog() -> None:
    running = workers.Workers([])
    orders(running)
    worker = running.started(events.WorkerStarted("default-0", ENDPOINT, 1))
    changes = [catalog.AliasCleared(str(number)) for number in range(2500)]
    steps = sent(running, running.send_full, worker, catalog_sync.split_changes(changes))
    running.synced(events.WorkerSynced("default-0", 2))
    assert not running.is_ready("default-0")
    running.synced(events.WorkerSynced("default-0", steps[-1].revision))
    assert running.ready("default") == ["default-0"]
    assert running.changed == {"default"}


def test_a_worker_that_starts_serves_once_it_has_what_came_after_its_full_catalog() -> None:
    starting = workers.Workers([])
    orders(starting)
    worker = starting.started(events.WorkerStarted("default-0", ENDPOINT, 1))
    full = sent(starting, starting.send_full, worker, ((),))
    changes = {"default": [catalog.AliasCleared("gone")]}
    (later,) = sent(starting, starting.send_changes, changes)
    starting.synced(events.WorkerSynced("default-0", full[-1].revision))
    assert not starting.is_ready("default-0"), "the change may have been acknowledged"
    starting.synced(events.WorkerSynced("default-0", later.revision))
    assert starting.is_ready("default-0")


def test_workers_that_are_too_many_are_drained(running: workers.Workers) -> None:
    assert orders(running, pool=world.pool(workers=1)) == [("StopWorker", "default-1")]
    running.stopped("default-1")
    assert list(running.records) == ["default-0"]


def test_workers_with_other_settings_are_replaced_one_at_a_time(running: workers.Workers) -> None:
    changed = world.pool(workers=2, queue_max=7)
    assert orders(running, pool=changed) == [("StopWorker", "default-0")]
    assert orders(running, pool=changed) == []
    running.stopped("default-0")
    assert orders(running, pool=changed) == [("StartWorker", "default-0")]
    assert orders(running, pool=changed) == []
    bring_up(running, "default-0")
    assert orders(running, pool=changed) == [("StopWorker", "default-1")]


def test_a_lost_worker_is_restarted_after_longer_and_longer_waits(running: workers.Workers) -> None:
    delays = []
    for _ in range(7):
        running.lost(events.WorkerLost("default-0", "killed"), 0.0)
        delays.append(running.records["default-0"].backoff.retry_at_s)
        assert orders(running, now_s=delays[-1]) == [("StartWorker", "default-0")]
        running.records["default-0"].started_s = 0.0
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]


def test_a_lost_worker_waits_out_its_back_off(running: workers.Workers) -> None:
    running.records["default-0"].backoff.failures = 2
    running.lost(events.WorkerLost("default-0", "killed"), 0.0)
    assert [orders(running, now_s=now_s) for now_s in (0.0, 1.0, 1.9)] == [[], [], []]
    assert orders(running, now_s=2.0) == [("StartWorker", "default-0")]
    assert orders(running, now_s=2.0) == []


def test_a_worker_that_ran_for_long_is_restarted_at_once(running: workers.Workers) -> None:
    running.records["default-0"].backoff.failures = 5
    running.lost(events.WorkerLost("default-0", "killed"), 100.0)
    assert orders(running, now_s=100.0) == [("StartWorker", "default-0")]


def test_a_lost_worker_gets_its_pools_newest_settings(running: workers.Workers) -> None:
    running.lost(events.WorkerLost("default-0", "killed"), 0.0)
    running.reconcile((world.pool(workers=2, queue_max=7),), 0.0)
    assert running._out[-1] == commands.StartWorker("default-0", world.pool(queue_max=7).settings)


def test_a_lost_worker_that_is_not_wanted_is_forgotten(running: workers.Workers) -> None:
    running.lost(events.WorkerLost("default-1", "killed"), 0.0)
    assert orders(running, pool=world.pool(workers=1)) == []
    assert list(running.records) == ["default-0"]


def test_the_loss_of_an_earlier_process_is_ignored(running: workers.Workers) -> None:
    running.lost(events.WorkerLost("default-0", "killed", pid=99), 0.0)
    assert running.is_ready("default-0")


def test_a_second_report_of_a_loss_is_ignored(running: workers.Workers) -> None:
    running.lost(events.WorkerLost("default-0", "killed", pid=1), 0.0)
    orders(running)
    running.lost(events.WorkerLost("default-0", "killed", pid=1), 0.0)
    assert running.records["default-0"].state == "starting"


def test_a_worker_lost_while_it_drains_is_gone(running: workers.Workers) -> None:
    orders(running, pool=world.pool(workers=1))
    running.lost(events.WorkerLost("default-1", "killed"), 0.0)
    assert list(running.records) == ["default-0"]


def test_a_start_that_is_not_wanted_any_more_is_no_worker(running: workers.Workers) -> None:
    assert running.started(events.WorkerStarted("default-7", ENDPOINT, 1)) is None
    orders(running, pool=world.pool(workers=1))
    assert running.started(events.WorkerStarted("default-1", ENDPOINT, 1)) is None


def test_a_process_that_takes_the_place_of_a_ready_one_starts_again(
    running: workers.Workers,
) -> None:
    running.started(events.WorkerStarted("default-0", ENDPOINT, 7))
    assert not running.is_ready("default-0")
    assert (running.records["default-0"].pid, running.records["default-0"].sent) == (7, 0)


def test_steps_are_numbered_without_a_gap(running: workers.Workers) -> None:
    worker = running.records["default-0"]
    steps = [
        *sent(running, running.send_changes, {"default": [1] * 1500}, worker_id="default-0"),
        *sent(running, running.send_full, worker, ((1,),)),
        *sent(running, running.send_changes, {"default": [1]}, worker_id="default-0"),
    ]
    assert [step.revision for step in steps] == [2, 3, 4, 5]
    assert [step.is_first for step in steps] == [False, False, True, False]
    assert max(len(step.changes) for step in steps) == catalog_sync.CHANGES_MAX


def test_homes_are_among_ready_workers(running: workers.Workers) -> None:
    homes = {running.home("default", f"m{number}") for number in range(50)}
    assert homes == {"default-0", "default-1"}
    running.lost(events.WorkerLost("default-0", "killed"), 0.0)
    assert {running.home("default", f"m{number}") for number in range(50)} == {"default-1"}
    assert running.home("gpu", "m") is None


def test_a_living_worker_is_taken_over_as_it_is() -> None:
    running = workers.Workers([])
    for worker_id, is_ready in (("default-0", True), ("default-1", False)):
        running.attach(events.LivingWorker(worker_id, POOL.settings, ENDPOINT, 1, is_ready), 0.0)
    assert running.ready("default") == ["default-0"]
    assert orders(running) == []


def test_a_report_is_kept_by_model_until_the_loss(running: workers.Workers) -> None:
    worker = running.records["default-0"]
    copy = reports.CopyReport(model.ModelId("a"), "ready")
    worker.take_report(reports.WorkerReport("default-0", 1, "n1", "ready", 1, copies=(copy,)))
    assert worker.copies == {model.ModelId("a"): copy}
    other, changed = (
        reports.CopyReport(model.ModelId("b"), "ready"),
        copy._replace(state="evicting"),
    )
    worker.take_report(
        reports.WorkerReport(
            "default-0", 1, "n1", "ready", 1, number=2, since=1, copies=(changed, other)
        )
    )
    assert worker.copies == {copy.id: changed, other.id: other}
    worker.take_report(
        reports.WorkerReport("default-0", 1, "n1", "ready", 1, number=3, since=2, gone=(copy.id,))
    )
    assert worker.copies == {other.id: other}
    worker.take_report(
        reports.WorkerReport("default-0", 1, "n1", "ready", 1, number=4, copies=(copy,))
    )
    assert worker.copies == {copy.id: copy}
    running.lost(events.WorkerLost("default-0", "killed"), 0.0)
    assert (worker.report, worker.copies) == (None, {})


def report_hung(
    running: workers.Workers, runs: int, oldest_s: float, worker_id: str = "default-0"
) -> None:
    copy = containment.HungCopy("k", (model.ModelId("slow"),), runs, runs, oldest_s)
    worker = running.records[worker_id]
    worker.take_report(
        reports.WorkerReport(worker_id, 1, "n1", "ready", 1, hung=(copy,), run_threads=64)
    )
    running.replace_if_ailing(worker)


@pytest.mark.parametrize(
    ("runs", "oldest_s", "is_replaced"), [(3, 59.0, False), (4, 0.0, True), (1, 60.0, True)]
)
def test_a_worker_that_loses_threads_to_runs_that_hang_is_replaced(
    running: workers.Workers, runs: int, oldest_s: float, is_replaced: bool
) -> None:
    report_hung(running, runs, oldest_s)
    worker = running.records["default-0"]
    assert (worker.state is reconcile.ProcessState.DRAINING) is is_replaced
    if is_replaced:
        assert "of its 64 threads are lost to runs that do not end, of slow:1" in worker.reason
        assert running._out[-1] == commands.StopWorker("default-0", worker.reason)
        # One at a time: the other one answers until this one is back.
        report_hung(running, 4, 60.0, "default-1")
        assert running.ready("default") == ["default-1"]
        running.stopped("default-0")
        assert orders(running) == [("StartWorker", "default-0")]


def test_a_worker_alone_is_replaced_only_when_its_threads_run_out(
    running: workers.Workers,
) -> None:
    orders(running, world.pool(workers=1))
    running.stopped("default-1")
    report_hung(running, 1, 600.0)
    assert running.is_ready("default-0")
    report_hung(running, 4, 0.0)
    assert not running.is_ready("default-0")


@pytest.mark.parametrize(("count", "excess_s", "is_replaced"), [(2, 59, 0), (2, 60, 1), (1, 99, 0)])
def test_a_worker_whose_memory_a_model_keeps_is_replaced_if_another_one_answers(
    running: workers.Workers, count: int, excess_s: float, is_replaced: int
) -> None:
    if count == 1:
        orders(running, world.pool(workers=1))
        running.stopped("default-1")
    hog = containment.MemoryHog("k", (model.ModelId("leaks"),), 1, 1 << 30, is_suspect=False)
    worker = running.records["default-0"]
    worker.take_report(
        reports.WorkerReport("default-0", 1, "n1", "ready", 1, hogs=(hog,), excess_s=excess_s)
    )
    running.replace_if_ailing(worker)
    assert ("more memory than its budget since it ran leaks:1" in worker.reason) == is_replaced
