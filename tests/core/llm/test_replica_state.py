from __future__ import annotations

import inspect
from typing import Any

import pytest

from meshserve.core import state_table
from meshserve.core.llm import replica_state
from meshserve.core.llm.replica_state import MOVES, ReplicaMove, ReplicaPhase
from tests.core import diagram, llm_world


def replica_in(
    phase: ReplicaPhase, *, failures: int = 0, **fields: Any
) -> replica_state.ReplicaRecord:
    retry = replica_state.ReplicaRetry(failures=failures, retry_at_s=0.0, reason="broken")
    return replica_state.ReplicaRecord("a/0", llm_world.spec("a"), retry, phase, **fields)


# The table


def test_the_diagram_at_the_head_of_the_file_is_the_table() -> None:
    assert diagram.of(replica_state.LIFECYCLE, ReplicaPhase) in inspect.cleandoc(
        replica_state.__doc__
    )


def test_every_phase_can_be_reached_from_absent_and_left_for_it() -> None:
    steps = {(before, after) for (before, _), after in MOVES.items()}
    backwards = {(after, before) for before, after in steps}
    assert reachable(ReplicaPhase.ABSENT, steps) == set(ReplicaPhase)
    assert reachable(ReplicaPhase.ABSENT, backwards) == set(ReplicaPhase)


def reachable(
    start: ReplicaPhase, steps: set[tuple[ReplicaPhase, ReplicaPhase]]
) -> set[ReplicaPhase]:
    """Return all phases that lie some steps behind `start`, and itself."""
    phases, newest = set(), {start}
    while newest:
        phases |= newest
        newest = {after for before, after in steps if before in phases} - phases
    return phases


def test_every_move_follows_some_phase() -> None:
    assert {move for _, move in MOVES} == set(ReplicaMove)


def test_a_ready_replica_stops_or_sleeps_only_by_way_of_draining() -> None:
    for move in (ReplicaMove.STOP_ORDERED, ReplicaMove.SLEEP_ORDERED):
        assert (ReplicaPhase.READY, move) not in MOVES


def test_an_illegal_move_is_an_assertion_with_the_moves_before() -> None:
    replica = replica_in(ReplicaPhase.WAITING)
    replica.move(ReplicaMove.START_ORDERED)
    with pytest.raises(
        state_table.IllegalMove, match="can't be slept; moves before: start ordered"
    ):
        replica.move(ReplicaMove.SLEPT)


def test_every_replica_has_a_public_state_and_a_rank() -> None:
    phases = set(ReplicaPhase) - {ReplicaPhase.ABSENT}
    assert set(replica_state.PUBLIC_STATES) == phases
    assert set(replica_state.KEEP_ORDER) == phases - {ReplicaPhase.STOPPING}


# The record


def test_each_failure_doubles_the_wait_up_to_a_minute() -> None:
    delays = []
    replica = replica_in(ReplicaPhase.STARTING)
    for number in range(8):
        replica.fail(f"broken {number}", 100.0)
        delays.append(replica.retry.retry_at_s - 100.0)
        replica.move(ReplicaMove.START_ORDERED)
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@pytest.mark.parametrize("is_permanent", [True, False])
def test_a_failure_that_lasts_is_tried_again_slowly(is_permanent: bool) -> None:
    delays = []
    replica = replica_in(ReplicaPhase.STARTING)
    for _ in range(6):
        replica.fail("broken", 100.0, is_permanent=is_permanent)
        delays.append(replica.retry.retry_at_s - 100.0)
        replica.move(ReplicaMove.START_ORDERED)
    assert delays == [60.0 if is_permanent else 1.0, 120.0, 240.0, 480.0, 600.0, 600.0]
    assert "does not pass by itself: the next try is 600 s" in replica.reason
    replica.come_up(200.0)
    replica.fail("broken", 210.0)
    assert "pass by itself" not in replica.reason


def test_the_first_loss_of_an_engine_that_has_served_is_no_doubt() -> None:
    replica = replica_in(ReplicaPhase.STARTING)
    replica.fail("broken", 100.0)
    assert replica.is_blocking(100.5)
    assert not replica.is_blocking(101.0)
    replica.move(ReplicaMove.START_ORDERED)
    assert replica.is_blocking(101.0)
    replica.retry.reset()
    replica.come_up(102.0)
    replica.fail("killed", 103.0)
    assert not replica.is_blocking(103.0)
    replica.move(ReplicaMove.START_ORDERED)
    replica.fail("broken", 104.0)
    assert replica.is_blocking(104.0)


def test_a_replica_that_served_for_long_fails_as_if_for_the_first_time() -> None:
    replica = replica_in(ReplicaPhase.READY, failures=5, up_s=0.0)
    replica.fail("killed", 61.0)
    retry = replica.retry
    assert (retry.failures, retry.retry_at_s, retry.reason) == (1, 62.0, "killed")


def test_a_replica_that_comes_up_has_no_reason_and_no_report() -> None:
    replica = replica_in(ReplicaPhase.STARTING, failures=1, reason="broken")
    replica.come_up(7.0)
    assert (replica.phase, replica.up_s) == (ReplicaPhase.READY, 7.0)
    assert (replica.reason, replica.retry.reason, replica.retry.failures) == ("", "", 1)


@pytest.mark.parametrize(
    ("phase", "failures", "is_failing"),
    [
        (ReplicaPhase.FAILED, 1, True),
        (ReplicaPhase.STARTING, 1, True),
        (ReplicaPhase.STARTING, 0, False),
        (ReplicaPhase.READY, 1, False),
    ],
)
def test_a_replica_is_failing_until_it_has_come_up_again(
    phase: ReplicaPhase, failures: int, is_failing: bool
) -> None:
    assert replica_in(phase, failures=failures).is_failing == is_failing
