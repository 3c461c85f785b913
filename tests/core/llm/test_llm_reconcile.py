from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.llm import llm_fleet, llm_reconcile, llm_state, replica_state
from meshserve.core.llm.llm_reconcile import LlmLoad
from meshserve.core.llm.replica_state import ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import commands, llm_spec, model
from tests.core import llm_world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


# The number of replicas


def bounded(least: int, most: int) -> llm_spec.LlmSpec:
    return llm_world.spec("a", replicas_min=least, replicas_max=most)


LOADS = st.builds(
    LlmLoad,
    st.integers(0, 9),
    st.integers(0, 9),
    st.floats(0, 500),
    st.floats(0, 500),
    st.booleans(),
)


@given(st.integers(0, 3), st.integers(1, 5), LOADS)
def test_the_number_of_replicas_stays_within_its_bounds(
    least: int, more: int, load: LlmLoad
) -> None:
    count = llm_reconcile.desired_replicas(bounded(least, least + more), load)
    assert max(least, load.is_used) <= count <= least + more or not load.is_used


@given(st.integers(1, 5), LOADS)
def test_the_number_of_replicas_changes_by_one_at_a_time(most: int, load: LlmLoad) -> None:
    before = min(max(load.desired, 1), most)
    steady = load._replace(desired=before, is_used=True)
    assert abs(llm_reconcile.desired_replicas(bounded(1, most), steady) - before) <= 1


@pytest.mark.parametrize(
    ("load", "count"),
    [
        (LlmLoad(0, 0, is_used=False), 0),
        (LlmLoad(0, 0), 1),
        (LlmLoad(1, 1, overloaded_s=9.9), 1),
        (LlmLoad(1, 1, overloaded_s=10.0), 2),
        (LlmLoad(2, 1, overloaded_s=99.0), 2),
        (LlmLoad(3, 3, overloaded_s=99.0), 3),
        (LlmLoad(3, 3, quiet_s=119.0), 3),
        (LlmLoad(3, 3, quiet_s=120.0), 2),
        (LlmLoad(1, 1, quiet_s=999.0), 1),
        (LlmLoad(3, 3, is_used=False), 0),
    ],
)
def test_the_number_of_replicas_follows_the_load(load: LlmLoad, count: int) -> None:
    assert llm_reconcile.desired_replicas(bounded(0, 3), load) == count


def test_an_unused_llm_keeps_its_least_number_of_replicas() -> None:
    assert llm_reconcile.desired_replicas(bounded(2, 3), LlmLoad(3, 3, is_used=False)) == 2


def reports(*counts: tuple[int, int]) -> list[llm_spec.LlmReport]:
    return [
        llm_spec.LlmReport(f"a/{number}", running, waiting)
        for number, (running, waiting) in enumerate(counts)
    ]


def test_requests_that_wait_inside_an_engine_are_overload() -> None:
    assert llm_reconcile.is_overloaded(reports((8, 0), (8, 1)))
    assert not llm_reconcile.is_overloaded(reports((8, 0), (8, 0)))


def test_fewer_requests_than_engines_are_quiet() -> None:
    assert llm_reconcile.is_quiet(reports((1, 0), (0, 0)))
    assert not llm_reconcile.is_quiet(reports((1, 0), (1, 0)))
    assert not llm_reconcile.is_quiet(reports((0, 1), (0, 0)))


# The next step of each replica


@pytest.fixture
def fleet() -> llm_fleet.Fleet:
    fresh = llm_fleet.Fleet(gateways.Gateways([]), [])
    fresh.bookings.observe((llm_spec.NodeCapacity("n1", 4, 4, cores=8),))
    return fresh


def want(fleet: llm_fleet.Fleet, **fields: Any) -> llm_state.LlmRecord:
    fleet.set_wanted([llm_world.spec("a", **fields)])
    fleet.assign_turns(0.0)
    return fleet.llms["a"]


def add(
    fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord, phase: ReplicaPhase
) -> replica_state.ReplicaRecord:
    replica = fleet.add_replica(llm, llm.next_id(), llm.spec)
    replica.phase, replica.endpoint = phase, ENDPOINT
    return replica


def drained(fleet: llm_fleet.Fleet) -> list[commands.Command]:
    ordered = list(fleet.out)
    fleet.out.clear()
    return ordered


def stop_surplus(fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord) -> list[commands.Command]:
    llm.route = llm.desired_route()
    llm_reconcile.stop_surplus(fleet, llm, 0.0)
    return drained(fleet)


def start_missing(
    fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord, now_s: float = 0.0
) -> list[commands.Command]:
    llm_reconcile.start_missing(fleet, llm, now_s)
    return drained(fleet)


def test_missing_replicas_are_started_on_their_nodes(fleet: llm_fleet.Fleet) -> None:
    llm = want(fleet, replicas_min=2, replicas_max=2)
    llm_reconcile.count_replicas(fleet, llm, 0.0)
    plan = llm_spec.ReplicaPlan((1,), "mp", "n1")
    starts = [commands.StartReplica(id_, llm.spec, plan) for id_ in ("a/0", "a/1")]
    assert start_missing(fleet, llm) == starts
    assert start_missing(fleet, llm) == []


def test_a_failed_replica_is_started_again_when_it_is_time(fleet: llm_fleet.Fleet) -> None:
    llm = want(fleet)
    llm_reconcile.count_replicas(fleet, llm, 0.0)
    add(fleet, llm, ReplicaPhase.FAILED).retry.retry_at_s = 5.0
    assert start_missing(fleet, llm, 4.9) == []
    assert [type(command) for command in start_missing(fleet, llm, 5.0)] == [commands.StartReplica]


@pytest.mark.parametrize(
    ("phase", "after", "is_ordered"),
    [
        (ReplicaPhase.READY, ReplicaPhase.DRAINING, False),
        (ReplicaPhase.DRAINING, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.GOING_TO_SLEEP, ReplicaPhase.GOING_TO_SLEEP, False),
        (ReplicaPhase.STARTING, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.WAKING, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.ASLEEP, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.FAILED, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.WAITING, ReplicaPhase.ABSENT, False),
    ],
)
def test_a_surplus_replica_goes_as_its_phase_allows(
    fleet: llm_fleet.Fleet, phase: ReplicaPhase, after: ReplicaPhase, is_ordered: bool
) -> None:
    llm = want(fleet)
    replica = add(fleet, llm, phase)
    assert stop_surplus(fleet, llm) == ([commands.StopReplica("a/0")] if is_ordered else [])
    assert replica.phase is after


def test_a_draining_replica_that_is_needed_again_stays(fleet: llm_fleet.Fleet) -> None:
    llm = want(fleet)
    llm.desired_replicas = 1
    replica = add(fleet, llm, ReplicaPhase.DRAINING)
    assert stop_surplus(fleet, llm) == []
    assert replica.phase is ReplicaPhase.READY


def test_failures_are_remembered_beyond_the_stop_of_a_failed_replica_only(
    fleet: llm_fleet.Fleet,
) -> None:
    llm = want(fleet)
    failed, asleep = add(fleet, llm, ReplicaPhase.FAILED), add(fleet, llm, ReplicaPhase.ASLEEP)
    stop_surplus(fleet, llm)
    assert failed.id in llm.retries
    assert asleep.id not in llm.retries


@pytest.mark.parametrize(
    ("phase", "after", "ordered"),
    [
        (ReplicaPhase.READY, ReplicaPhase.DRAINING, []),
        (ReplicaPhase.DRAINING, ReplicaPhase.GOING_TO_SLEEP, [commands.SleepReplica("a/0", 2)]),
        (ReplicaPhase.FAILED, ReplicaPhase.STOPPING, [commands.StopReplica("a/0")]),
        (ReplicaPhase.STARTING, ReplicaPhase.STARTING, []),
        (ReplicaPhase.ASLEEP, ReplicaPhase.ASLEEP, []),
    ],
)
def test_a_replica_without_the_turn_makes_way_as_its_phase_allows(
    fleet: llm_fleet.Fleet,
    phase: ReplicaPhase,
    after: ReplicaPhase,
    ordered: list[commands.Command],
) -> None:
    llm = want(fleet, share="g", sleep_level=2)
    llm.desired_replicas, fleet.turns["g"] = 1, "another"
    replica = add(fleet, llm, phase)
    assert stop_surplus(fleet, llm) == ordered
    assert replica.phase is after
    assert start_missing(fleet, llm) == []


def test_a_group_that_needs_more_gpus_is_placed_anew(fleet: llm_fleet.Fleet) -> None:
    llm = want(fleet, share="g")
    llm.desired_replicas = 1
    start_missing(fleet, llm)
    fleet.set_wanted([llm.spec, llm_world.spec("big", share="g", tensor_parallel_size=3)])
    assert stop_surplus(fleet, llm) == [commands.StopReplica("a/0")]


def test_overload_is_timed_from_when_it_began(fleet: llm_fleet.Fleet) -> None:
    llm = want(fleet, replicas_max=2)
    llm.desired_replicas = 1
    replica = add(fleet, llm, ReplicaPhase.READY)
    replica.report = llm_spec.LlmReport("a/0", running=3, waiting=1)
    for now_s in (100.0, 105.0):
        llm_reconcile.count_replicas(fleet, llm, now_s)
    assert (llm.overloaded_s, llm.desired_replicas) == (100.0, 1)
    llm_reconcile.count_replicas(fleet, llm, 110.0)
    assert (llm.overloaded_s, llm.desired_replicas) == (None, 2)


def test_a_changed_alias_or_stall_time_restarts_nothing(fleet: llm_fleet.Fleet) -> None:
    llm = want(fleet, aliases=("prod",))
    llm.desired_replicas = 1
    replica = add(fleet, llm, ReplicaPhase.READY)
    replica.report = llm_spec.LlmReport("a/0")
    want(fleet, aliases=("test",))
    assert stop_surplus(fleet, llm) == []
    want(fleet, stall_timeout_s=7.0)
    assert stop_surplus(fleet, llm) == [commands.UpdateReplica("a/0", llm.spec)]
    assert stop_surplus(fleet, llm) == []
    replica.end_update(llm.spec, "", 0.0)
    assert stop_surplus(fleet, llm) == []
    assert (replica.phase, replica.spec) == (ReplicaPhase.READY, llm.spec)


SQL, TONE = llm_spec.Adapter("sql", "/sql"), llm_spec.Adapter("tone", "/tone")


@pytest.mark.parametrize("adapters", [(SQL, TONE), (), (TONE,)])
def test_adapters_are_changed_while_the_engine_runs(
    fleet: llm_fleet.Fleet, adapters: tuple[llm_spec.Adapter, ...]
) -> None:
    llm = want(fleet, adapters=(SQL,))
    llm.desired_replicas = 1
    replica = add(fleet, llm, ReplicaPhase.READY)
    want(fleet, adapters=adapters)
    assert stop_surplus(fleet, llm) == []
    replica.report = llm_spec.LlmReport("a/0", can_change_adapters=True)
    assert stop_surplus(fleet, llm) == [commands.UpdateReplica("a/0", llm.spec)]
    # An adapter is no name of the LLM's before each replica has it.
    route = llm.desired_route()
    assert route is not None
    assert set(route.names) == {"a"} | ({"sql"} if SQL in adapters else set())
    replica.end_update(llm.spec, "", 0.0)
    route = llm.desired_route()
    assert route is not None
    assert route.names == llm.spec.names


def test_an_engine_that_takes_no_other_adapters_is_replaced(fleet: llm_fleet.Fleet) -> None:
    llm = want(fleet)
    llm.desired_replicas = 1
    replica = add(fleet, llm, ReplicaPhase.READY)
    replica.report = llm_spec.LlmReport("a/0")
    want(fleet, adapters=(SQL,))
    assert stop_surplus(fleet, llm) == []
    assert start_missing(fleet, llm) == [
        commands.StartReplica("a/1", llm.spec, llm_spec.ReplicaPlan((1,), "mp", "n1"))
    ]


def test_an_adapter_that_can_not_be_loaded_is_told_and_tried_again_later(
    fleet: llm_fleet.Fleet,
) -> None:
    llm = want(fleet, adapters=(SQL,))
    llm.desired_replicas = 1
    replica = add(fleet, llm, ReplicaPhase.READY)
    replica.report = llm_spec.LlmReport("a/0", can_change_adapters=True)
    want(fleet, adapters=(SQL, TONE))
    assert len(stop_surplus(fleet, llm)) == 1
    replica.end_update(llm.spec, "no such rank", 0.0)
    assert (llm.reason, llm.state, replica.spec.adapters) == ("no such rank", "ready", (SQL,))
    assert stop_surplus(fleet, llm) == []
    llm_reconcile.stop_surplus(fleet, llm, 10.0)
    assert drained(fleet) == [commands.UpdateReplica("a/0", llm.spec)]
    replica.end_update(llm.spec, "", 11.0)
    assert llm.reason == ""


def test_missing_gpus_are_told_rather_than_other_starts(fleet: llm_fleet.Fleet) -> None:
    fleet.bookings.observe((llm_spec.NodeCapacity("n1", 1, 1, cores=2),))
    fleet.set_wanted([llm_world.spec("a"), llm_world.spec("b", tensor_parallel_size=2)])
    for llm in fleet.llms.values():
        llm.desired_replicas = 1
        start_missing(fleet, llm)
    assert fleet.llms["b"].reason == "it needs 2 GPUs and the cluster has 1"
    fleet.set_wanted([llm_world.spec("a"), llm_world.spec("b", device="cpu")])
    start_missing(fleet, fleet.llms["b"])
    assert fleet.llms["b"].reason == "1 other engine starts at this time"
