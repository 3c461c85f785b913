from __future__ import annotations

from typing import Any

import pytest

from meshserve.core.llm import llm_fleet, llm_state, replica_state
from meshserve.core.llm.replica_state import ReplicaMove, ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import llm_spec, model
from tests.core import llm_world

SHARED = {"share": "g", "residency_s_min": 30.0}
ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


@pytest.fixture
def fleet() -> llm_fleet.Fleet:
    fresh = llm_fleet.Fleet(gateways.Gateways([]), [])
    a, b = llm_world.spec("a", **SHARED), llm_world.spec("b", tensor_parallel_size=2, **SHARED)
    fresh.set_wanted([a, b, llm_world.spec("c")])
    fresh.assign_turns(0.0)
    return fresh


def add(
    fleet: llm_fleet.Fleet, name: str, phase: ReplicaPhase, **fields: Any
) -> replica_state.ReplicaRecord:
    llm = fleet.llms[name]
    replica = fleet.add_replica(llm, llm.next_id(), llm.spec)
    replica.phase = phase
    for field, value in fields.items():
        setattr(replica, field, value)
    return replica


def test_an_llm_is_called_by_any_of_its_names_while_it_is_wanted(fleet: llm_fleet.Fleet) -> None:
    fleet.set_wanted([llm_world.spec("a", aliases=("also",))])
    assert (fleet.find_served("also"), fleet.find_served("b")) == (fleet.llms["a"], None)


def test_a_replica_and_its_llm_follow_from_its_id(fleet: llm_fleet.Fleet) -> None:
    replica = add(fleet, "a", ReplicaPhase.WAITING)
    assert (fleet.find_replica("a/0"), fleet.find_llm_of("a/9")) == (replica, fleet.llms["a"])
    assert fleet.find_replica("z/0") is None


def test_the_first_llm_of_a_group_has_the_turn_and_one_alone_always(fleet: llm_fleet.Fleet) -> None:
    assert [name for name in "abc" if fleet.has_turn(fleet.llms[name])] == ["a", "c"]


def test_a_group_gets_the_gpus_that_its_biggest_member_needs(fleet: llm_fleet.Fleet) -> None:
    assert [fleet.gpus_for(fleet.llms[name]) for name in "abc"] == [2, 2, 1]


@pytest.mark.parametrize(
    "phase", [phase for phase in ReplicaPhase if phase is not ReplicaPhase.ABSENT]
)
def test_a_replica_is_blocked_while_another_of_its_group_uses_gpu_memory(
    fleet: llm_fleet.Fleet, phase: ReplicaPhase
) -> None:
    replica = add(fleet, "a", ReplicaPhase.WAITING)
    add(fleet, "c", ReplicaPhase.READY)
    add(fleet, "b", phase)
    is_blocked = phase not in (ReplicaPhase.WAITING, ReplicaPhase.ASLEEP)
    assert fleet.is_blocked(replica) == is_blocked


def test_failures_of_another_engine_are_forgotten(fleet: llm_fleet.Fleet) -> None:
    add(fleet, "c", ReplicaPhase.FAILED)
    fleet.set_wanted([llm_world.spec("c", idle_timeout_s=1.0)])
    assert fleet.llms["c"].retries
    fleet.set_wanted([llm_world.spec("c", engine={"seed": 1})])
    assert not fleet.llms["c"].retries


def test_an_llm_that_is_not_wanted_is_forgotten_with_its_last_replica(
    fleet: llm_fleet.Fleet,
) -> None:
    replica = add(fleet, "c", ReplicaPhase.STOPPING)
    fleet.set_wanted([])
    fleet.forget_gone()
    assert list(fleet.llms) == ["c"]
    fleet.remove_replica(replica, ReplicaMove.STOPPED)
    fleet.forget_gone()
    assert not fleet.llms


def test_the_expected_wait_has_the_wait_for_the_turn(fleet: llm_fleet.Fleet) -> None:
    assert fleet.expected_s(fleet.llms["b"], 0.0) == 60.0
    add(fleet, "a", ReplicaPhase.READY, up_s=0.0)
    assert fleet.expected_s(fleet.llms["b"], 10.0) == 80.0
    assert fleet.expected_s(fleet.llms["b"], 40.0) == 60.0
    assert fleet.expected_s(fleet.llms["a"], 10.0) == 1.0


@pytest.mark.parametrize(
    ("phase", "stage"),
    [
        (ReplicaPhase.READY, "up"),
        (ReplicaPhase.DRAINING, "up"),
        (ReplicaPhase.STARTING, "coming up"),
        (ReplicaPhase.FAILED, "failed"),
        (ReplicaPhase.ASLEEP, "down"),
    ],
)
def test_the_stage_of_a_group_member_follows_from_the_phase(
    fleet: llm_fleet.Fleet, phase: ReplicaPhase, stage: str
) -> None:
    llm = fleet.llms["a"]
    add(fleet, "a", phase, up_s=5.0)
    llm.held.add(llm_state.HeldRequest("t", 1, 7.0))
    member = llm_fleet.group_member(llm)
    assert (member.stage, member.up_s, member.requested_s) == (stage, 5.0, 7.0)
    assert member.is_always_on


def test_check_finds_two_of_a_group_awake(fleet: llm_fleet.Fleet) -> None:
    for name in "ab":
        replica = add(fleet, name, ReplicaPhase.READY, endpoint=ENDPOINT)
        replica.plan = fleet.bookings.book_running(replica.holder, replica.id, 2, "n1")
    with pytest.raises(AssertionError, match="are awake"):
        fleet.check()


def test_gpus_are_booked_for_a_replica_or_for_its_group(fleet: llm_fleet.Fleet) -> None:
    holders = [add(fleet, name, ReplicaPhase.WAITING).holder for name in "ac"]
    assert holders == ["group g", "c/0"]


def test_no_more_engines_start_at_a_time_than_the_cores_bear() -> None:
    fleet = llm_fleet.Fleet(gateways.Gateways([]), [])
    fleet.set_wanted([llm_world.spec("a", replicas_min=4)])
    llm = fleet.llms["a"]
    replicas = [fleet.add_replica(llm, llm.next_id(), llm.spec) for _ in range(4)]
    fresh, doubtful = replicas[2:]
    doubtful.retry.failures = 1
    assert fleet.start_refusal(doubtful, 0.0) == ""
    replicas[0].phase = ReplicaPhase.STARTING
    assert fleet.start_refusal(fresh, 0.0) == "1 other engine starts at this time"
    fleet.bookings.observe((llm_spec.NodeCapacity("n1", 0, 0, cores=4),))
    assert fleet.start_refusal(fresh, 0.0) == ""
    assert fleet.start_refusal(doubtful, 0.0) == "1 other engine starts at this time"
    replicas[1].phase = ReplicaPhase.STARTING
    assert fleet.start_refusal(fresh, 0.0) == "2 other engines start at this time"
    # One that starts for minutes waits for a download.
    assert fleet.start_refusal(fresh, 120.0) == ""
