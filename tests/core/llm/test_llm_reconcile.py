from __future__ import annotations

import pytest

from meshserve.core.llm import llm_fleet, llm_reconcile
from meshserve.core.llm.replica_lifecycle import ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import commands, llm_spec, model
from tests.core import llm_world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


@pytest.fixture
def fleet():
    made = llm_fleet.Fleet(gateways.Gateways())
    made.room.seen((llm_spec.NodeCapacity("n1", 4, 4),))
    return made


def want(fleet, **fields):
    fleet.want([llm_world.spec("a", **fields)])
    fleet.take_turns(0.0)
    return fleet.llms["a"]


def add(fleet, each, state):
    replica = fleet.add(each, each.next_id(), each.spec)
    replica.state, replica.endpoint = state, ENDPOINT
    return replica


def shed(fleet, each):
    each.route = each.wanted_route()
    return list(llm_reconcile.shed(fleet, each))


def test_what_is_missing_comes_and_is_given_its_place(fleet):
    each = want(fleet, replicas_min=2, replicas_max=2)
    llm_reconcile.count(fleet, each, 0.0)
    plan = llm_spec.ReplicaPlan((1,), "mp", "n1")
    started = [commands.StartReplica(id_, each.spec, plan) for id_ in ("a/0", "a/1")]
    assert list(llm_reconcile.raise_(fleet, each, 0.0)) == started
    assert list(llm_reconcile.raise_(fleet, each, 0.0)) == []


def test_what_failed_comes_again_when_it_is_time(fleet):
    each = want(fleet)
    llm_reconcile.count(fleet, each, 0.0)
    add(fleet, each, ReplicaPhase.FAILED).trouble.retry_at_s = 5.0
    assert list(llm_reconcile.raise_(fleet, each, 4.9)) == []
    assert [type(command) for command in llm_reconcile.raise_(fleet, each, 5.0)] == [
        commands.StartReplica
    ]


@pytest.mark.parametrize(
    ("state", "after", "is_ordered"),
    [
        (ReplicaPhase.READY, ReplicaPhase.LEAVING, False),
        (ReplicaPhase.LEAVING, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.DROWSING, ReplicaPhase.DROWSING, False),
        (ReplicaPhase.STARTING, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.WAKING, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.ASLEEP, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.FAILED, ReplicaPhase.STOPPING, True),
        (ReplicaPhase.WAITING, ReplicaPhase.ABSENT, False),
    ],
)
def test_one_too_many_goes_as_its_state_allows(fleet, state, after, is_ordered):
    each = want(fleet)
    replica = add(fleet, each, state)
    assert shed(fleet, each) == ([commands.StopReplica("a/0")] if is_ordered else [])
    assert replica.state is after


def test_one_that_need_not_go_stays(fleet):
    each = want(fleet)
    each.count = 1
    replica = add(fleet, each, ReplicaPhase.LEAVING)
    assert shed(fleet, each) == []
    assert replica.state is ReplicaPhase.READY


def test_a_failure_is_remembered_beyond_the_stop_and_a_good_end_is_none(fleet):
    each = want(fleet)
    failed, good = add(fleet, each, ReplicaPhase.FAILED), add(fleet, each, ReplicaPhase.ASLEEP)
    shed(fleet, each)
    assert failed.id in each.troubles
    assert good.id not in each.troubles


@pytest.mark.parametrize(
    ("state", "after", "ordered"),
    [
        (ReplicaPhase.READY, ReplicaPhase.LEAVING, []),
        (ReplicaPhase.LEAVING, ReplicaPhase.DROWSING, [commands.SleepReplica("a/0", 2)]),
        (ReplicaPhase.FAILED, ReplicaPhase.STOPPING, [commands.StopReplica("a/0")]),
        (ReplicaPhase.STARTING, ReplicaPhase.STARTING, []),
        (ReplicaPhase.ASLEEP, ReplicaPhase.ASLEEP, []),
    ],
)
def test_one_whose_turn_is_over_rests_as_its_state_allows(fleet, state, after, ordered):
    each = want(fleet, share="g", sleep_level=2)
    each.count, fleet.turns["g"] = 1, "another"
    replica = add(fleet, each, state)
    assert shed(fleet, each) == ordered
    assert replica.state is after
    assert list(llm_reconcile.raise_(fleet, each, 0.0)) == []


def test_a_group_that_needs_more_gpus_is_placed_anew(fleet):
    each = want(fleet, share="g")
    each.count = 1
    list(llm_reconcile.raise_(fleet, each, 0.0))
    fleet.want([each.spec, llm_world.spec("big", share="g", tensor_parallel_size=3)])
    assert shed(fleet, each) == [commands.StopReplica("a/0")]


def test_how_long_there_is_too_much_to_do_is_counted_from_when_it_began(fleet):
    each = want(fleet, replicas_max=2)
    each.count = 1
    replica = add(fleet, each, ReplicaPhase.READY)
    replica.report = llm_spec.LlmReport("a/0", running=3, waiting=1)
    for now_s in (100.0, 105.0):
        llm_reconcile.count(fleet, each, now_s)
    assert (each.pressed_s, each.count) == (100.0, 1)
    llm_reconcile.count(fleet, each, 110.0)
    assert (each.pressed_s, each.count) == (None, 2)
