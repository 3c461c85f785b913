"""The table of a lifecycle in words, as it stands at the head of its module."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from meshserve.core import state_table


def of(lifecycle: state_table.Lifecycle[Any, Any], states: Iterable[enum.Enum]) -> str:
    """Return one line for each of `states` that can be left: its moves, and where they lead."""
    states = list(states)
    width = max(len(str(state.value)) for state in states)
    lines = ((state, _moves_from(lifecycle, state)) for state in states)
    return "\n".join(f"{state.value:<{width}} → {moves}" for state, moves in lines if moves)


def _moves_from(lifecycle: state_table.Lifecycle[Any, Any], state: enum.Enum) -> str:
    moves = lifecycle.moves.items()
    pairs = ((move, after) for (before, move), after in moves if before is state)
    return ", ".join(f"{after.value}: {move.value}" for move, after in pairs)
