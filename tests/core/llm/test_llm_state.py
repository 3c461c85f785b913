from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from meshserve.core.llm import llm_state, replica_state
from meshserve.core.llm.replica_state import ReplicaPhase
from meshserve.core.values import llm_spec, model, snapshots
from tests.core import llm_world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


def test_the_expected_duration_follows_the_measurements() -> None:
    estimate = llm_state.DurationEstimate()
    assert estimate.expected_s == 60.0
    estimate.record(10.0)
    assert estimate.expected_s == 10.0
    estimate.record(20.0)
    assert estimate.expected_s == pytest.approx(13.0)
    assert (estimate.stat.count, estimate.stat.total_s) == (2, 30.0)


# The queue of held requests

LIMITS = llm_spec.HoldLimits(requests_max=2, bytes_max=100, wait_s_max=10.0)


@pytest.fixture
def held() -> Iterator[llm_state.HoldQueue]:
    queue = llm_state.HoldQueue()
    queue.add(llm_state.HeldRequest("first", 10, 0.0))
    queue.add(llm_state.HeldRequest("second", 50, 5.0))
    yield queue
    queue.check(LIMITS)


def test_requests_are_taken_in_the_order_of_arrival(held: llm_state.HoldQueue) -> None:
    assert held.since_s == 0.0
    assert held.take_all() == ["first", "second"]
    assert (len(held), held.size_bytes) == (0, 0)
    assert held.since_s is None


def test_a_request_whose_client_left_is_not_counted_any_more(held: llm_state.HoldQueue) -> None:
    held.remove("first")
    held.remove("first")
    assert "first" not in held
    assert (len(held), held.size_bytes, held.since_s) == (1, 50, 5.0)


def test_a_ticket_waits_only_once(held: llm_state.HoldQueue) -> None:
    with pytest.raises(AssertionError):
        held.add(llm_state.HeldRequest("first", 1, 6.0))


def test_a_full_queue_refuses_one_more_request(held: llm_state.HoldQueue) -> None:
    assert "2 requests wait" in held.refusal(LIMITS, 1)


def test_a_queue_refuses_one_more_byte_than_it_may_hold(held: llm_state.HoldQueue) -> None:
    held.remove("first")
    assert held.refusal(LIMITS, 50) == ""
    assert "50 bytes" in held.refusal(LIMITS, 51)


def test_requests_are_overdue_after_the_longest_wait(held: llm_state.HoldQueue) -> None:
    assert held.take_overdue(LIMITS, 9.9) == []
    assert held.take_overdue(LIMITS, 10.0) == ["first"]
    assert [request.ticket for request in held] == ["second"]


def test_narrower_limits_remove_the_newest_requests(held: llm_state.HoldQueue) -> None:
    assert held.take_surplus(LIMITS) == []
    assert held.take_surplus(llm_spec.HoldLimits(1, 100)) == ["second"]
    assert held.take_surplus(llm_spec.HoldLimits(1, 5)) == ["first"]


# One LLM


@pytest.fixture
def llm() -> llm_state.LlmRecord:
    return llm_state.LlmRecord("a", llm_world.spec("a", idle_timeout_s=10.0), is_wanted=True)


def add(
    llm: llm_state.LlmRecord,
    number: int,
    phase: ReplicaPhase,
    *,
    failures: int = 0,
    retry_at_s: float = 0.0,
    **fields: Any,
) -> replica_state.ReplicaRecord:
    retry = replica_state.ReplicaRetry(failures=failures, retry_at_s=retry_at_s, reason="broken")
    replica = replica_state.ReplicaRecord(
        f"a/{number}", llm.spec, retry, phase, endpoint=ENDPOINT, **fields
    )
    llm.replicas[replica.id] = replica
    return replica


def test_the_smallest_free_number_names_the_next_replica(llm: llm_state.LlmRecord) -> None:
    add(llm, 0, ReplicaPhase.READY)
    add(llm, 2, ReplicaPhase.READY)
    assert llm.next_id() == "a/1"


def test_replicas_that_serve_stay_before_others(llm: llm_state.LlmRecord) -> None:
    phases = [
        ReplicaPhase.WAITING,
        ReplicaPhase.FAILED,
        ReplicaPhase.STARTING,
        ReplicaPhase.DRAINING,
        ReplicaPhase.STOPPING,
        ReplicaPhase.READY,
    ]
    for number, phase in enumerate(phases):
        add(llm, number, phase)
    assert [replica.id for replica in llm.active_replicas()] == ["a/5", "a/3", "a/2", "a/1", "a/0"]


def test_its_state_is_that_of_the_replica_that_has_come_furthest(llm: llm_state.LlmRecord) -> None:
    assert (llm.state, llm.reason) == ("idle", "")
    add(llm, 0, ReplicaPhase.FAILED, reason="broken")
    assert (llm.state, llm.reason) == ("failed", "broken")
    add(llm, 1, ReplicaPhase.WAITING)
    assert llm.state == "starting"
    add(llm, 2, ReplicaPhase.READY)
    assert llm.state == "ready"


def test_an_llm_whose_last_replica_failed_says_so(llm: llm_state.LlmRecord) -> None:
    llm.retries["a/0"] = replica_state.ReplicaRetry(failures=1, reason="broken")
    assert (llm.state, llm.reason) == ("failed", "broken")
    add(llm, 0, ReplicaPhase.STARTING)
    assert (llm.state, llm.reason) == ("starting", "")


def test_a_replica_that_has_not_reported_may_be_in_use(llm: llm_state.LlmRecord) -> None:
    replica = add(llm, 0, ReplicaPhase.READY)
    assert llm.is_used(100.0)
    replica.report = llm_spec.LlmReport("a/0", running=1)
    assert llm.is_used(100.0)
    replica.report = llm_spec.LlmReport("a/0")
    assert not llm.is_used(100.0)
    llm.used_s = 91.0
    assert llm.is_used(100.0)


def members(route: snapshots.LlmRoute | None) -> tuple[bool, list[str]]:
    assert route is not None
    return route.is_held, [member.worker_id for member in route.members]


def test_a_draining_replica_is_routed_to_while_no_other_serves(llm: llm_state.LlmRecord) -> None:
    add(llm, 0, ReplicaPhase.DRAINING)
    assert members(llm.desired_route()) == (True, ["a/0"])
    add(llm, 1, ReplicaPhase.READY)
    assert members(llm.desired_route()) == (False, ["a/1"])


def test_an_llm_that_is_not_wanted_has_no_route(llm: llm_state.LlmRecord) -> None:
    llm.is_wanted = False
    assert llm.desired_route() is None


@pytest.mark.parametrize(
    ("phase", "expected_s"),
    [
        (ReplicaPhase.READY, 1.0),
        (ReplicaPhase.STARTING, 50.0),
        (ReplicaPhase.WAKING, 20.0),
        (ReplicaPhase.ASLEEP, 30.0),
        (ReplicaPhase.FAILED, 65.0),
        (ReplicaPhase.WAITING, 65.0),
    ],
)
def test_the_expected_wait_follows_the_phase(
    llm: llm_state.LlmRecord, phase: ReplicaPhase, expected_s: float
) -> None:
    llm.wakes.record(30.0)
    add(llm, 0, phase, ordered_s=90.0, retry_at_s=105.0)
    assert llm.expected_s(100.0) == expected_s


def test_without_a_replica_a_whole_start_is_expected(llm: llm_state.LlmRecord) -> None:
    assert llm.expected_s(0.0) == 60.0
    llm.retries["a/0"] = replica_state.ReplicaRetry(failures=1, retry_at_s=5.0, reason="broken")
    assert llm.expected_s(0.0) == 65.0


def test_only_a_start_after_a_failure_keeps_requests_from_waiting(llm: llm_state.LlmRecord) -> None:
    assert llm.blocking_failure(0.0) is None
    replica = add(llm, 0, ReplicaPhase.STARTING)
    assert llm.blocking_failure(0.0) is None
    replica.retry.failures = 1
    assert llm.blocking_failure(0.0) is replica.retry
    add(llm, 1, ReplicaPhase.STARTING)
    assert llm.blocking_failure(0.0) is None


def test_a_failure_without_a_replica_blocks_until_the_next_try(llm: llm_state.LlmRecord) -> None:
    llm.retries["a/0"] = replica_state.ReplicaRetry(failures=1, retry_at_s=5.0, reason="broken")
    assert llm.blocking_failure(4.0) is llm.retries["a/0"]
    assert llm.blocking_failure(5.0) is None
