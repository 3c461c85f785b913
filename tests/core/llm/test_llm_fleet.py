from __future__ import annotations

import pytest

from meshserve.core.llm import hold_queue, llm_fleet, llm_state
from meshserve.core.llm.replica_lifecycle import ReplicaMove, ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import model
from tests.core import llm_world

SHARED = {"share": "g", "residency_s_min": 30.0}
ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


@pytest.fixture
def fleet():
    made = llm_fleet.Fleet(gateways.Gateways())
    made.want(
        [
            llm_world.spec("a", **SHARED),
            llm_world.spec("b", tensor_parallel_size=2, **SHARED),
            llm_world.spec("c"),
        ]
    )
    made.take_turns(0.0)
    return made


def add(fleet, name, state, **fields):
    each = fleet.llms[name]
    replica = fleet.add(each, each.next_id(), each.spec)
    replica.state = state
    for field, value in fields.items():
        setattr(replica, field, value)
    return replica


def test_an_llm_is_found_by_any_of_its_names_while_it_is_wanted(fleet):
    fleet.want([llm_world.spec("a", aliases=("also",))])
    assert (fleet.called("also"), fleet.called("b")) == (fleet.llms["a"], None)


def test_a_replica_is_found_by_its_id(fleet):
    replica = add(fleet, "a", ReplicaPhase.WAITING)
    assert (fleet.replica("a/0"), fleet.of("a/9"), fleet.replica("z/0")) == (
        replica,
        fleet.llms["a"],
        None,
    )


def test_the_first_of_a_group_has_its_turn_and_one_alone_always(fleet):
    assert [name for name in "abc" if fleet.has_turn(fleet.llms[name])] == ["a", "c"]


def test_a_group_has_as_many_gpus_as_its_biggest_member_needs(fleet):
    assert [fleet.gpus(fleet.llms[name]) for name in "abc"] == [2, 2, 1]


@pytest.mark.parametrize(
    "state", [state for state in ReplicaPhase if state is not ReplicaPhase.ABSENT]
)
def test_one_of_a_group_comes_only_when_the_others_are_out_of_the_way(fleet, state):
    mine = add(fleet, "a", ReplicaPhase.WAITING)
    add(fleet, "c", ReplicaPhase.READY)
    add(fleet, "b", state)
    assert fleet.is_blocked(mine) == (state not in (ReplicaPhase.WAITING, ReplicaPhase.ASLEEP))


def test_what_failed_with_another_engine_is_forgotten(fleet):
    add(fleet, "c", ReplicaPhase.FAILED)
    fleet.want([llm_world.spec("c", idle_timeout_s=1.0)])
    assert fleet.llms["c"].troubles
    fleet.want([llm_world.spec("c", engine={"seed": 1})])
    assert not fleet.llms["c"].troubles


def test_what_is_gone_and_not_wanted_is_forgotten(fleet):
    replica = add(fleet, "c", ReplicaPhase.STOPPING)
    fleet.want([])
    fleet.forget_gone()
    assert list(fleet.llms) == ["c"]
    fleet.remove(replica, ReplicaMove.STOPPED)
    fleet.forget_gone()
    assert not fleet.llms


def test_the_wait_for_a_turn_is_expected_too(fleet):
    assert fleet.expected_s(fleet.llms["b"], 0.0) == 60.0
    add(fleet, "a", ReplicaPhase.READY, up_s=0.0)
    assert fleet.expected_s(fleet.llms["b"], 10.0) == 80.0
    assert fleet.expected_s(fleet.llms["b"], 40.0) == 60.0
    assert fleet.expected_s(fleet.llms["a"], 10.0) == 1.0


@pytest.mark.parametrize(
    ("state", "stage"),
    [
        (ReplicaPhase.READY, "up"),
        (ReplicaPhase.LEAVING, "up"),
        (ReplicaPhase.STARTING, "coming"),
        (ReplicaPhase.FAILED, "failed"),
        (ReplicaPhase.ASLEEP, "away"),
    ],
)
def test_how_a_member_is_for_its_turn(fleet, state, stage):
    each = fleet.llms["a"]
    add(fleet, "a", state, up_s=5.0)
    each.held.add(hold_queue.HeldRequest("t", 1, 7.0))
    found = llm_fleet.member(each)
    assert (found.stage, found.since_s, found.asked_s, found.is_kept) == (stage, 5.0, 7.0, True)


def test_two_awake_of_a_group_are_a_mistake(fleet):
    for name in "ab":
        replica = add(fleet, name, ReplicaPhase.READY, endpoint=ENDPOINT)
        replica.plan = fleet.room.attach(replica.holder, replica.id, 2, "n1")
    with pytest.raises(AssertionError, match="are awake"):
        fleet.check()


def test_a_replica_has_its_gpus_in_its_own_name_or_its_groups(fleet):
    assert [add(fleet, name, ReplicaPhase.WAITING).holder for name in "ac"] == ["group g", "c/0"]
    assert isinstance(fleet.llms["c"], llm_state.LlmRecord)
