from __future__ import annotations

import inspect
import itertools

import pytest

from meshserve.core.memory import copy_lifecycle
from meshserve.core.memory.copy_lifecycle import MOVES, CopyMove, CopyPhase


def test_the_diagram_at_the_head_of_the_file_is_the_table():
    assert copy_lifecycle.diagram() in inspect.cleandoc(copy_lifecycle.__doc__)


def test_every_state_can_be_reached_from_absent_and_left_for_it():
    steps = {(before, after) for (before, _), after in MOVES.items()}
    assert reachable(CopyPhase.ABSENT, steps) == set(CopyPhase)
    assert reachable(CopyPhase.ABSENT, {(after, before) for before, after in steps}) == set(
        CopyPhase
    )


def reachable(start, steps):
    """All states that lie some steps behind `start`, and itself."""
    found, more = set(), {start}
    while more:
        found |= more
        more = {after for before, after in steps if before in found} - found
    return found


def test_every_move_happens_to_some_state():
    assert {move for _, move in MOVES} == set(CopyMove)


@pytest.mark.parametrize(
    ("state", "move"),
    [pair for pair in itertools.product(CopyPhase, CopyMove) if pair not in MOVES],
)
def test_what_the_table_does_not_know_can_not_happen(state, move):
    with pytest.raises(copy_lifecycle.IllegalMove, match=f"{state.value} can't be {move.value}"):
        copy_lifecycle.after(state, move)


@pytest.mark.parametrize(("state", "move"), MOVES)
def test_what_the_table_knows_happens(state, move):
    assert copy_lifecycle.after(state, move) is MOVES[state, move]


def test_only_what_is_on_its_way_can_be_waited_for():
    for state in copy_lifecycle.WAITABLE - {CopyPhase.QUEUED, CopyPhase.DRAINING}:
        assert not any(
            move in {CopyMove.REQUESTED, CopyMove.EVICTION_ORDERED}
            for before, move in MOVES
            if before is state
        )
    assert not copy_lifecycle.WAITABLE & (
        copy_lifecycle.IDLE | {CopyPhase.ABSENT, CopyPhase.FAILED, CopyPhase.STUCK}
    )


def test_moving_states_end_in_memory_or_not_at_all():
    assert {MOVES[state, CopyMove.LOADED] for state in copy_lifecycle.MOVING} == {CopyPhase.READY}
