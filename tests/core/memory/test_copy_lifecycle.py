from __future__ import annotations

import inspect

from meshserve.core.memory import copy_lifecycle
from meshserve.core.memory.copy_lifecycle import CopyMove, CopyPhase
from tests.core import diagram

MOVES = copy_lifecycle.LIFECYCLE.moves


def test_the_diagram_at_the_head_of_the_file_is_the_table() -> None:
    head = inspect.cleandoc(copy_lifecycle.__doc__)
    assert diagram.of(copy_lifecycle.LIFECYCLE, CopyPhase) in head


def test_every_phase_can_be_reached_from_absent_and_left_for_it() -> None:
    steps = {(before, after) for (before, _), after in MOVES.items()}
    assert reachable(CopyPhase.ABSENT, steps) == set(CopyPhase)
    assert reachable(CopyPhase.ABSENT, {(after, before) for before, after in steps}) == set(
        CopyPhase
    )


def reachable(start: CopyPhase, steps: set[tuple[CopyPhase, CopyPhase]]) -> set[CopyPhase]:
    """Return all phases that some steps lead to from `start`, and `start` itself."""
    reached, fresh = set(), {start}
    while fresh:
        reached |= fresh
        fresh = {after for before, after in steps if before in reached} - reached
    return reached


def test_every_move_is_legal_in_some_phase() -> None:
    assert {move for _, move in MOVES} == set(CopyMove)


def test_waiting_is_allowed_only_where_an_event_will_come() -> None:
    for phase in copy_lifecycle.WAITABLE - {CopyPhase.QUEUED, CopyPhase.DRAINING}:
        assert not any(
            move in {CopyMove.REQUESTED, CopyMove.EVICTION_ORDERED}
            for before, move in MOVES
            if before is phase
        )
    assert not copy_lifecycle.WAITABLE & (
        copy_lifecycle.IDLE | {CopyPhase.ABSENT, CopyPhase.FAILED, CopyPhase.STUCK}
    )


def test_incoming_phases_end_in_ready_or_not_at_all() -> None:
    assert {MOVES[phase, CopyMove.LOADED] for phase in copy_lifecycle.INCOMING} == {CopyPhase.READY}
