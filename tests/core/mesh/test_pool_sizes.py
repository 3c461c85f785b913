from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from meshserve.core.processes.reconcile import ProcessState
from meshserve.core.values import commands, desired, events, model, reports
from tests.core import world

SCALING = desired.ScalingSettings(1, grow_after_s=5.0, shrink_after_s=60.0)
BUDGET = model.Footprint(4 << 30)
POOL = dataclasses.replace(world.pool(workers=4), scaling=SCALING)


@pytest.fixture
def stage() -> world.World:
    stage = world.World()
    stage.apply(pools=(POOL,), models=(world.spec("a"),))
    return stage


def pass_time(stage: world.World, seconds: float, *, cores: float, **fields: Any) -> None:
    """Let all workers report each second what they use, and perform what follows."""
    for _ in range(int(seconds)):
        for worker_id in list(stage.processes):
            if stage.mesh.workers.is_ready(worker_id):
                requests = int(stage.now_s) if cores else 0
                counters = reports.Counters(requests=requests)
                use = reports.WorkerUse(cores, **fields)
                stage.hear_report(worker_id, counters=counters, budget=BUDGET, use=use)
        stage.tick(1.0)
        stage.perform_all()
        stage.check()


def test_a_pool_begins_with_its_fewest_workers(stage: world.World) -> None:
    assert set(stage.processes) == {"default-0"}
    assert stage.mesh.gateway_snapshot(world.NODE).workers_wanted == 1


def test_a_pool_grows_with_its_load_and_drains_the_last_workers_when_it_is_over(
    stage: world.World,
) -> None:
    pass_time(stage, 60, cores=1.0)
    assert set(stage.processes) == {f"default-{number}" for number in range(4)}
    stage.log.clear()
    pass_time(stage, 400, cores=0.05)
    assert set(stage.processes) == {"default-0"}
    stops = [command for command in stage.log if isinstance(command, commands.StopWorker)]
    assert {stop.worker_id for stop in stops} == {"default-1", "default-2", "default-3"}
    size = stage.mesh.pool_sizes.sizes["default"]
    assert size.reason


def test_gateways_leave_a_worker_out_before_it_is_stopped(stage: world.World) -> None:
    pass_time(stage, 60, cores=1.0)
    stage.log.clear()
    pass_time(stage, 400, cores=0.05)
    order = [type(command) for command in stage.log]
    first_stop = order.index(commands.StopWorker)
    # The controller's effects wait for the gateways before they perform the stop.
    assert commands.ConfigureGateway in order[first_stop:]


def test_models_that_keep_a_pool_busy_and_memory_are_measured_in_workers(
    stage: world.World,
) -> None:
    pass_time(stage, 30, cores=0.1, lost=0.5, used=BUDGET)
    assert len(stage.processes) > 1
    grown = len(stage.processes)
    pass_time(stage, 300, cores=0.1, used=model.Footprint(3 << 30))
    assert len(stage.processes) == grown, "the models in use fill these workers"


def test_new_bounds_count_at_once_and_a_fixed_number_ends_the_scaling(stage: world.World) -> None:
    pass_time(stage, 60, cores=1.0)
    smaller = dataclasses.replace(POOL, workers=2)
    stage.apply(pools=(smaller,), models=(world.spec("a"),))
    assert len(stage.processes) == 2
    fixed = dataclasses.replace(POOL, workers=3, scaling=None)
    stage.apply(pools=(fixed,), models=(world.spec("a"),))
    assert len(stage.processes) == 3
    assert stage.mesh.pool_sizes.sizes == {}
    stage.feed(events.ConfigApplied(desired.Desired(pools=(POOL,), models=(world.spec("a"),))))
    stage.perform_all()
    assert len(stage.processes) == 3, "it goes on with the workers that it has"


def test_a_new_controller_goes_on_with_the_workers_that_it_finds(stage: world.World) -> None:
    pass_time(stage, 60, cores=1.0)
    living = tuple(
        events.LivingWorker(worker.id, worker.settings, worker.endpoint, worker.pid)
        for worker in stage.mesh.workers.records.values()
        if worker.endpoint
    )
    again = world.World()
    config = desired.Desired(pools=(POOL,), models=(world.spec("a"),))
    again.mesh.handle(events.Restored((config,), living), again.now_s)
    again.mesh.handle(events.Ticked(), again.now_s)
    states = [worker.state for worker in again.mesh.workers.records.values()]
    assert states == [ProcessState.READY] * 4


def test_a_worker_that_is_lost_starts_no_other_one(stage: world.World) -> None:
    pass_time(stage, 3, cores=0.5)
    stage.kill("default-0")
    pass_time(stage, 60, cores=0.5)
    assert set(stage.processes) == {"default-0"}


def test_a_pinned_model_wakes_its_pool_and_keeps_it_awake_until_it_is_unpinned() -> None:
    sleepy = dataclasses.replace(POOL, scaling=dataclasses.replace(SCALING, workers_min=0))
    stage = world.World()
    stage.apply(pools=(sleepy,))
    stage.feed(events.ModelsRegistered((world.spec("a"), world.spec("b", pinned=True))))
    pass_time(stage, 2, cores=0.0)
    assert stage.processes["default-0"].pins == {model.ModelId("b")}
    stage.feed(events.PinRequested(model.ModelId("a"), is_pinned=True))
    stage.feed(events.PinRequested(model.ModelId("b"), is_pinned=False))
    pass_time(stage, 200, cores=0.0)
    assert stage.processes["default-0"].pins == {model.ModelId("a")}
    assert stage.mesh.view().pools["default"].reason == "a model is pinned"
    stage.feed(events.PinRequested(model.ModelId("a"), is_pinned=False))
    pass_time(stage, 100, cores=0.0)
    assert stage.processes == {}


def test_a_pool_of_a_pinned_model_shrinks_to_one_worker_and_no_further(stage: world.World) -> None:
    sleepy = dataclasses.replace(POOL, scaling=dataclasses.replace(SCALING, workers_min=0))
    stage.apply(pools=(sleepy,), models=(world.spec("a", pinned=True),))
    pass_time(stage, 60, cores=1.0)
    assert len(stage.processes) == 4
    pass_time(stage, 200, cores=0.0)
    assert len(stage.processes) == 1
    stage.feed(events.ModelRemoved("a"))
    pass_time(stage, 100, cores=0.0)
    assert stage.processes == {}, "the pinned model is gone"
