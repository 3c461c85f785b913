from __future__ import annotations

import dataclasses

import pytest

from meshserve.core.llm import llm_state
from meshserve.core.llm.replica_lifecycle import ReplicaPhase
from meshserve.core.values import llm_spec, model
from tests.core import llm_world

SPEC = llm_world.spec("a", idle_timeout_s=10.0)
ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


@pytest.fixture
def each():
    return llm_state.LlmRecord("a", SPEC, is_wanted=True)


def add(each, number, state, **fields):
    trouble = llm_state.StartFailure(
        fields.pop("losses", 0), "broken", fields.pop("retry_at_s", 0.0)
    )
    replica = llm_state.ReplicaRecord(
        f"a/{number}", each.spec, trouble, state, endpoint=ENDPOINT, **fields
    )
    each.replicas[replica.id] = replica
    return replica


@pytest.mark.parametrize(
    "field",
    [
        "uri",
        "aliases",
        "adapters",
        "tensor_parallel_size",
        "share",
        "device",
        "engine",
        "stall_timeout_s",
    ],
)
def test_an_engine_is_another_where_it_is_started_differently(field):
    assert not llm_state.is_same_engine(SPEC, dataclasses.replace(SPEC, **{field: "else"}))


@pytest.mark.parametrize("field", llm_state.NOT_THE_ENGINES)
def test_an_engine_is_the_same_where_only_its_times_or_limits_differ(field):
    assert llm_state.is_same_engine(SPEC, dataclasses.replace(SPEC, **{field: 7}))


def test_what_is_expected_follows_what_was_measured():
    pace = llm_state.Pace()
    assert pace.expected_s == 60.0
    pace.took(10.0)
    assert pace.expected_s == 10.0
    pace.took(20.0)
    assert pace.expected_s == pytest.approx(13.0)
    assert (pace.span.count, pace.span.total_s) == (2, 30.0)


def test_each_loss_doubles_the_wait_up_to_a_minute():
    trouble, delays = llm_state.StartFailure(), []
    for _ in range(8):
        trouble.happened("broken", 100.0)
        delays.append(trouble.retry_at_s - 100.0)
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_one_that_was_up_for_long_has_not_failed_in_a_row(each):
    replica = add(each, 0, ReplicaPhase.READY, losses=5, up_s=0.0)
    replica.fail("killed", 61.0)
    assert (replica.trouble.losses, replica.trouble.retry_at_s, replica.reason) == (
        1,
        62.0,
        "killed",
    )


def test_numbers_that_are_free_again_are_taken_again(each):
    add(each, 0, ReplicaPhase.READY)
    add(each, 2, ReplicaPhase.READY)
    assert each.next_id() == "a/1"


def test_those_that_serve_stay_before_others(each):
    for number, state in enumerate(
        [
            ReplicaPhase.WAITING,
            ReplicaPhase.FAILED,
            ReplicaPhase.STARTING,
            ReplicaPhase.LEAVING,
            ReplicaPhase.STOPPING,
            ReplicaPhase.READY,
        ]
    ):
        add(each, number, state)
    assert [replica.id for replica in each.living()] == ["a/5", "a/3", "a/2", "a/1", "a/0"]


def test_its_state_is_that_of_the_replica_that_is_furthest(each):
    assert (each.state, each.reason) == ("idle", "")
    add(each, 0, ReplicaPhase.FAILED, reason="broken")
    assert (each.state, each.reason) == ("failed", "broken")
    add(each, 1, ReplicaPhase.WAITING)
    assert each.state == "starting"
    add(each, 2, ReplicaPhase.READY)
    assert each.state == "ready"


def test_one_that_failed_and_is_not_tried_again_says_so(each):
    each.troubles["a/0"] = llm_state.StartFailure(1, "broken")
    assert (each.state, each.reason) == ("failed", "broken")
    add(each, 0, ReplicaPhase.STARTING)
    assert (each.state, each.reason) == ("starting", "")


def test_one_that_has_not_reported_may_be_in_use(each):
    replica = add(each, 0, ReplicaPhase.READY)
    assert each.is_used(100.0)
    replica.report = llm_spec.LlmReport("a/0", running=1)
    assert each.is_used(100.0)
    replica.report = llm_spec.LlmReport("a/0")
    assert not each.is_used(100.0)
    each.used_s = 91.0
    assert each.is_used(100.0)


def test_a_replica_that_leaves_is_named_while_no_other_serves(each):
    add(each, 0, ReplicaPhase.LEAVING)
    assert [
        (route.is_held, [member.worker_id for member in route.members])
        for route in [each.wanted_route()]
    ] == [(True, ["a/0"])]
    add(each, 1, ReplicaPhase.READY)
    assert [
        (route.is_held, [member.worker_id for member in route.members])
        for route in [each.wanted_route()]
    ] == [(False, ["a/1"])]


def test_what_is_not_wanted_has_no_route_and_no_names(each):
    each.is_wanted = False
    assert each.wanted_route() is None
    assert list(each.callable_names()) == []


@pytest.mark.parametrize(
    ("state", "expected_s"),
    [
        (ReplicaPhase.READY, 1.0),
        (ReplicaPhase.STARTING, 50.0),
        (ReplicaPhase.WAKING, 20.0),
        (ReplicaPhase.ASLEEP, 30.0),
        (ReplicaPhase.FAILED, 65.0),
        (ReplicaPhase.WAITING, 65.0),
    ],
)
def test_the_expected_wait_follows_the_state(each, state, expected_s):
    each.wakes.took(30.0)
    add(each, 0, state, ordered_s=90.0, retry_at_s=105.0)
    assert each.expected_s(100.0) == expected_s


def test_without_a_replica_a_whole_start_is_expected(each):
    assert each.expected_s(0.0) == 60.0
    each.troubles["a/0"] = llm_state.StartFailure(1, "broken", 5.0)
    assert each.expected_s(0.0) == 65.0


def test_a_first_start_is_no_failure_and_one_after_a_loss_is(each):
    assert each.failure(0.0) is None
    replica = add(each, 0, ReplicaPhase.STARTING)
    assert each.failure(0.0) is None
    replica.trouble.losses = 1
    assert each.failure(0.0) is replica.trouble
    add(each, 1, ReplicaPhase.STARTING)
    assert each.failure(0.0) is None


def test_a_loss_that_is_waited_for_is_a_failure_without_a_replica(each):
    each.troubles["a/0"] = llm_state.StartFailure(1, "broken", 5.0)
    assert each.failure(4.0) is each.troubles["a/0"]
    assert each.failure(5.0) is None
