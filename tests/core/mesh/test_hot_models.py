"""A model that one worker is not enough for is on several, for as long as it is busy."""

from __future__ import annotations

from typing import Any

import pytest

from meshserve.core.mesh import hot_models
from meshserve.core.values import commands, desired, events, model, reports
from tests.core import world

ID = model.ModelId("m")
HOT, QUIET = 1.0, 0.1


@pytest.fixture
def mesh_world() -> world.World:
    mesh_world = world.World()
    mesh_world.apply(
        pools=(world.pool(workers=4),),
        models=(
            world.spec("m", origin=model.FROM_CONFIG),
            world.spec("n", origin=model.FROM_CONFIG),
        ),
    )
    return mesh_world


def report(
    mesh_world: world.World,
    share: float,
    *,
    id_: model.ModelId = ID,
    workers: list[str] | None = None,
) -> None:
    """One report of each of these workers, by default of all that have the model."""
    worker_ids = workers or routed(mesh_world) or [mesh_world.home(id_.name)]
    for worker_id in worker_ids:
        process, known = mesh_world.processes[worker_id], mesh_world.mesh.workers.records[worker_id]
        demands = (reports.ModelDemand(id_, share),) if share else ()
        report = reports.WorkerReport(
            worker_id, process.pid, "n1", "ready", process.follower.revision, demands=demands
        )
        mesh_world.feed(events.WorkerReported(report, known.synced))


def report_for(mesh_world: world.World, seconds: int, share: float, **which: Any) -> None:
    for _ in range(seconds):
        mesh_world.tick(1.0)
        report(mesh_world, share, **which)
        mesh_world.perform_all()
        mesh_world.check()


def routed(mesh_world: world.World, name: str = "m") -> list[str]:
    routes = {
        item.name: item.worker_ids for item in mesh_world.mesh.gateway_snapshot(world.NODE).hot
    }
    return list(routes.get(name, ()))


@pytest.mark.parametrize(
    ("load", "workers_max", "count"),
    [
        (0.0, 4, 1),
        (0.7, 4, 1),
        (0.71, 4, 2),
        (1.0, 4, 2),
        (2.0, 4, 3),
        (4.0, 4, 4),
        (9.0, 8, 8),
        (1.0, 0, 1),
    ],
)
def test_as_many_workers_are_wanted_as_bring_each_below_the_bound(
    load: float, workers_max: int, count: int
) -> None:
    assert hot_models.worker_count(load, workers_max) == count


def test_a_busy_model_comes_to_more_workers_until_none_is_too_busy(mesh_world: world.World) -> None:
    report_for(mesh_world, 3, HOT)
    assert routed(mesh_world) == []
    report_for(mesh_world, 2, HOT)
    assert routed(mesh_world) == list(mesh_world.mesh.workers.homes("default", "m", 2))
    report_for(mesh_world, 30, HOT)
    assert routed(mesh_world) == list(mesh_world.mesh.workers.homes("default", "m", 4))
    assert routed(mesh_world)[0] == mesh_world.home("m")


def test_requests_go_to_a_worker_only_after_the_load(mesh_world: world.World) -> None:
    mesh_world.log.clear()
    for _ in range(5):
        mesh_world.tick(1.0)
        report(mesh_world, HOT)
    (load,) = {
        command
        for command in mesh_world.log
        if isinstance(command, commands.EnsureLoaded) and command.worker_id != mesh_world.home("m")
    }
    assert (load.id, load.worker_id, routed(mesh_world)) == (
        ID,
        mesh_world.mesh.workers.homes("default", "m", 2)[1],
        [],
    )
    mesh_world.perform_all()
    assert len(routed(mesh_world)) == 2


def test_a_short_burst_of_requests_moves_nothing(mesh_world: world.World) -> None:
    report_for(mesh_world, 2, HOT)
    report_for(mesh_world, 60, QUIET)
    assert (routed(mesh_world), mesh_world.mesh.hot_models.models) == ([], {})


def test_a_model_quiet_for_long_goes_home(mesh_world: world.World) -> None:
    report_for(mesh_world, 30, HOT)
    report_for(mesh_world, 55, QUIET)
    assert len(routed(mesh_world)) == 4
    report_for(mesh_world, 70, QUIET)
    assert (routed(mesh_world), mesh_world.mesh.hot_models.models) == ([], {})


def test_a_worker_that_reports_no_demand_is_not_busy(mesh_world: world.World) -> None:
    report_for(mesh_world, 30, HOT)
    report_for(mesh_world, 200, 0.0)
    assert routed(mesh_world) == []


def test_aliases_go_where_the_model_goes(mesh_world: world.World) -> None:
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "m")))
    mesh_world.settle()
    report_for(mesh_world, 5, HOT)
    (route,) = mesh_world.mesh.gateway_snapshot(world.NODE).hot
    assert (route.pool, route.name, route.names) == ("default", "m", ("m", "al"))


def test_a_pool_says_on_how_many_workers_a_model_may_be(mesh_world: world.World) -> None:
    mesh_world.apply(
        pools=(desired.PoolSettings(desired.WorkerSettings(), 4, copies_max=2),),
        models=(world.spec("m", origin=model.FROM_CONFIG),),
    )
    report_for(mesh_world, 60, HOT)
    assert len(routed(mesh_world)) == 2


def test_a_worker_that_can_t_load_the_model_gets_no_requests(mesh_world: world.World) -> None:
    mesh_world.failing_loads = {"m"}
    report_for(mesh_world, 10, HOT)
    assert routed(mesh_world) == []
    mesh_world.failing_loads = set()
    report_for(mesh_world, 40, HOT)
    assert len(routed(mesh_world)) == 4


def test_a_lost_worker_is_replaced_and_comes_back(mesh_world: world.World) -> None:
    report_for(mesh_world, 5, HOT)
    home, second = routed(mesh_world)
    mesh_world.kill(second)
    mesh_world.check()
    assert second not in routed(mesh_world)
    mesh_world.perform_all()
    mesh_world.settle()
    assert routed(mesh_world) == [home, second]


def test_the_home_may_be_lost_too(mesh_world: world.World) -> None:
    report_for(mesh_world, 5, HOT)
    mesh_world.kill(routed(mesh_world)[0])
    mesh_world.check()
    mesh_world.settle()
    assert routed(mesh_world) == list(mesh_world.mesh.workers.homes("default", "m", 2))


def test_a_model_declared_anew_begins_at_home(mesh_world: world.World) -> None:
    report_for(mesh_world, 30, HOT)
    mesh_world.apply(
        pools=(world.pool(workers=4),),
        models=(world.spec("m", uri="/other", origin=model.FROM_CONFIG),),
    )
    assert (routed(mesh_world), mesh_world.mesh.hot_models.models) == ([], {})


def test_a_removed_model_is_forgotten(mesh_world: world.World) -> None:
    report_for(mesh_world, 30, HOT)
    mesh_world.apply(pools=(world.pool(workers=4),))
    assert (routed(mesh_world), mesh_world.mesh.hot_models.models) == ([], {})


def test_versions_of_a_model_are_busy_together(mesh_world: world.World) -> None:
    second = model.ModelId("m", "2")
    both = tuple(world.spec("m", version, origin=model.FROM_CONFIG) for version in ("1", "2"))
    mesh_world.apply(pools=(world.pool(workers=4),), models=both)
    home, process = mesh_world.home("m"), mesh_world.processes[mesh_world.home("m")]
    for _ in range(5):
        mesh_world.tick(1.0)
        demands = (reports.ModelDemand(ID, 0.4), reports.ModelDemand(second, 0.5))
        report = reports.WorkerReport(
            home, process.pid, "n1", "ready", process.follower.revision, demands=demands
        )
        mesh_world.feed(events.WorkerReported(report, mesh_world.mesh.workers.records[home].synced))
        mesh_world.perform_all()
    assert {name: hot.id for name, hot in mesh_world.mesh.hot_models.models.items()} == {
        "m": second
    }
    assert len(routed(mesh_world)) == 2
