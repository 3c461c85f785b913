from __future__ import annotations

import inspect
import itertools

import pytest

from meshserve.core.llm import replica_lifecycle
from meshserve.core.llm.replica_lifecycle import MOVES, ReplicaMove, ReplicaPhase


def test_the_diagram_at_the_head_of_the_file_is_the_table():
    assert replica_lifecycle.diagram() in inspect.cleandoc(replica_lifecycle.__doc__)


def test_every_state_can_be_reached_from_absent_and_left_for_it():
    steps = {(before, after) for (before, _), after in MOVES.items()}
    assert reachable(ReplicaPhase.ABSENT, steps) == set(ReplicaPhase)
    assert reachable(ReplicaPhase.ABSENT, {(after, before) for before, after in steps}) == set(
        ReplicaPhase
    )


def reachable(start, steps):
    """All states that lie some steps behind `start`, and itself."""
    found, more = set(), {start}
    while more:
        found |= more
        more = {after for before, after in steps if before in found} - found
    return found


def test_every_move_happens_to_some_state():
    assert {move for _, move in MOVES} == set(ReplicaMove)


@pytest.mark.parametrize(
    ("state", "move"),
    [pair for pair in itertools.product(ReplicaPhase, ReplicaMove) if pair not in MOVES],
)
def test_what_the_table_does_not_know_can_not_happen(state, move):
    with pytest.raises(replica_lifecycle.IllegalMove, match=f"{state.value} can't be {move.value}"):
        replica_lifecycle.after(state, move)


@pytest.mark.parametrize(("state", "move"), MOVES)
def test_what_the_table_knows_happens(state, move):
    assert replica_lifecycle.after(state, move) is MOVES[state, move]


def test_users_are_told_of_every_replica_that_there_is():
    assert set(replica_lifecycle.SAID) == set(ReplicaPhase) - {ReplicaPhase.ABSENT}


def test_one_that_serves_stops_or_sleeps_only_by_way_of_leaving():
    assert (
        not {
            (ReplicaPhase.READY, ReplicaMove.STOP_ORDERED),
            (ReplicaPhase.READY, ReplicaMove.SLEEP_ORDERED),
        }
        & MOVES.keys()
    )
