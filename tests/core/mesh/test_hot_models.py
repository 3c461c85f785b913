"""A model that one worker is not enough for is on several, for as long as it is busy."""

from __future__ import annotations

import pytest

from meshserve.core.mesh import hot_models
from meshserve.core.values import commands, desired, events, model, reports
from tests.core import world

ID = model.ModelId("m")
HOT, QUIET = 1.0, 0.1


@pytest.fixture
def of():
    made = world.World()
    made.apply(
        pools=(world.pool(workers=4),),
        models=(
            world.spec("m", origin=model.FROM_CONFIG),
            world.spec("n", origin=model.FROM_CONFIG),
        ),
    )
    return made


def tell(of, share, *, id_=ID, workers=None):
    """One report of each of these workers, by default of all that have the model."""
    there = workers or routed(of) or [of.mesh.home(id_.name)]
    for worker_id in there:
        process, known = of.processes[worker_id], of.mesh.workers.records[worker_id]
        demands = (reports.ModelDemand(id_, share),) if share else ()
        said = reports.WorkerReport(
            worker_id, process.pid, "n1", "ready", process.follower.revision, demands=demands
        )
        of.feed(events.WorkerReported(said, known.synced))


def tell_for(of, seconds, share, **which):
    for _ in range(seconds):
        of.tick(1.0)
        tell(of, share, **which)
        of.perform_all()
        of.check()


def routed(of, name="m"):
    routes = {each.name: each.worker_ids for each in of.mesh.gateway_snapshot(world.NODE).hot}
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
def test_as_many_workers_are_wanted_as_bring_each_below_the_bound(load, workers_max, count):
    assert hot_models.worker_count(load, workers_max) == count


def test_a_busy_model_comes_to_more_workers_until_none_is_too_busy(of):
    tell_for(of, 3, HOT)
    assert routed(of) == []
    tell_for(of, 2, HOT)
    assert routed(of) == list(of.mesh.workers.homes("default", "m", 2))
    tell_for(of, 30, HOT)
    assert routed(of) == list(of.mesh.workers.homes("default", "m", 4))
    assert routed(of)[0] == of.mesh.home("m")


def test_requests_go_nowhere_before_the_model_is_loaded_there(of):
    of.log.clear()
    for _ in range(5):
        of.tick(1.0)
        tell(of, HOT)
    (asked,) = {
        command
        for command in of.log
        if isinstance(command, commands.EnsureLoaded) and command.worker_id != of.mesh.home("m")
    }
    assert (asked.id, asked.worker_id, routed(of)) == (
        ID,
        of.mesh.workers.homes("default", "m", 2)[1],
        [],
    )
    of.perform_all()
    assert len(routed(of)) == 2


def test_a_moment_of_many_requests_moves_nothing(of):
    tell_for(of, 2, HOT)
    tell_for(of, 60, QUIET)
    assert (routed(of), of.mesh.hot_models.models) == ([], {})


def test_it_goes_home_when_it_has_been_quiet_for_long(of):
    tell_for(of, 30, HOT)
    tell_for(of, 55, QUIET)
    assert len(routed(of)) == 4
    tell_for(of, 70, QUIET)
    assert (routed(of), of.mesh.hot_models.models) == ([], {})


def test_a_worker_that_tells_nothing_of_it_any_more_is_not_busy_with_it(of):
    tell_for(of, 30, HOT)
    tell_for(of, 200, 0.0)
    assert routed(of) == []


def test_aliases_go_where_the_model_goes(of):
    of.feed(events.AliasRequested(desired.DesiredAlias("al", "m")))
    of.settle()
    tell_for(of, 5, HOT)
    (route,) = of.mesh.gateway_snapshot(world.NODE).hot
    assert (route.pool, route.name, route.names) == ("default", "m", ("m", "al"))


def test_a_pool_says_on_how_many_workers_a_model_may_be(of):
    of.apply(
        pools=(desired.PoolSettings(desired.WorkerSettings(), 4, copies_max=2),),
        models=(world.spec("m", origin=model.FROM_CONFIG),),
    )
    tell_for(of, 60, HOT)
    assert len(routed(of)) == 2


def test_where_it_can_t_be_loaded_it_does_not_go(of):
    of.failing_loads = {"m"}
    tell_for(of, 10, HOT)
    assert routed(of) == []
    of.failing_loads = set()
    tell_for(of, 40, HOT)
    assert len(routed(of)) == 4


def test_a_lost_worker_s_place_is_taken_by_another_and_given_back(of):
    tell_for(of, 5, HOT)
    home, second = routed(of)
    of.kill(second)
    of.check()
    assert second not in routed(of)
    of.perform_all()
    of.settle()
    assert routed(of) == [home, second]


def test_the_home_may_be_lost_too(of):
    tell_for(of, 5, HOT)
    of.kill(routed(of)[0])
    of.check()
    of.settle()
    assert routed(of) == list(of.mesh.workers.homes("default", "m", 2))


def test_one_that_is_declared_anew_begins_at_home(of):
    tell_for(of, 30, HOT)
    of.apply(
        pools=(world.pool(workers=4),),
        models=(world.spec("m", uri="/other", origin=model.FROM_CONFIG),),
    )
    assert (routed(of), of.mesh.hot_models.models) == ([], {})


def test_one_that_is_removed_is_forgotten(of):
    tell_for(of, 30, HOT)
    of.apply(pools=(world.pool(workers=4),))
    assert (routed(of), of.mesh.hot_models.models) == ([], {})


def test_versions_of_a_model_are_busy_together(of):
    second = model.ModelId("m", "2")
    both = tuple(world.spec("m", version, origin=model.FROM_CONFIG) for version in ("1", "2"))
    of.apply(pools=(world.pool(workers=4),), models=both)
    home, process = of.mesh.home("m"), of.processes[of.mesh.home("m")]
    for _ in range(5):
        of.tick(1.0)
        demands = (reports.ModelDemand(ID, 0.4), reports.ModelDemand(second, 0.5))
        said = reports.WorkerReport(
            home, process.pid, "n1", "ready", process.follower.revision, demands=demands
        )
        of.feed(events.WorkerReported(said, of.mesh.workers.records[home].synced))
        of.perform_all()
    assert {name: hot.id for name, hot in of.mesh.hot_models.models.items()} == {"m": second}
    assert len(routed(of)) == 2
