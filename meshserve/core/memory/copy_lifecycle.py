"""The life of one copy on a worker: its states and every legal move. Nothing else decides what may follow what.

absent     → queued: wanted
queued     → loading: admitted, unparking: restored, absent: given up, parked: shelved
loading    → ready: loaded, failed: load failed, stuck: timed out
stuck      → ready: loaded, failed: load failed
failed     → queued: wanted
ready      → draining: drain ordered, parking: park ordered, evicting: eviction ordered
draining   → evicting: eviction ordered
parking    → parked: shelved, evicting: move failed
parked     → queued: wanted, evicting: eviction ordered
unparking  → ready: loaded, evicting: move failed
evicting   → absent: freed
"""

from __future__ import annotations

import enum

from meshserve import errors


class State(enum.Enum):
    """Where a copy is in its life.

    Stuck: its load takes too long and has not ended. Draining: those who use it finish, nobody new gets it. Parked: in host memory only.
    """

    ABSENT = "absent"
    QUEUED = "queued"
    LOADING = "loading"
    STUCK = "stuck"
    FAILED = "failed"
    READY = "ready"
    DRAINING = "draining"
    PARKING = "parking"
    PARKED = "parked"
    UNPARKING = "unparking"
    EVICTING = "evicting"


class Move(enum.Enum):
    """What can happen to a copy."""

    WANTED = "wanted"
    ADMITTED = "admitted"
    RESTORED = "restored"
    LOADED = "loaded"
    LOAD_FAILED = "load failed"
    TIMED_OUT = "timed out"
    DRAIN_ORDERED = "drain ordered"
    PARK_ORDERED = "park ordered"
    SHELVED = "shelved"
    MOVE_FAILED = "move failed"
    EVICTION_ORDERED = "eviction ordered"
    FREED = "freed"
    GIVEN_UP = "given up"


MOVES: dict[tuple[State, Move], State] = {
    (State.ABSENT, Move.WANTED): State.QUEUED,
    (State.QUEUED, Move.ADMITTED): State.LOADING,
    (State.QUEUED, Move.RESTORED): State.UNPARKING,
    (State.QUEUED, Move.GIVEN_UP): State.ABSENT,
    (State.QUEUED, Move.SHELVED): State.PARKED,
    (State.LOADING, Move.LOADED): State.READY,
    (State.LOADING, Move.LOAD_FAILED): State.FAILED,
    (State.LOADING, Move.TIMED_OUT): State.STUCK,
    (State.STUCK, Move.LOADED): State.READY,
    (State.STUCK, Move.LOAD_FAILED): State.FAILED,
    (State.FAILED, Move.WANTED): State.QUEUED,
    (State.READY, Move.DRAIN_ORDERED): State.DRAINING,
    (State.READY, Move.PARK_ORDERED): State.PARKING,
    (State.READY, Move.EVICTION_ORDERED): State.EVICTING,
    (State.DRAINING, Move.EVICTION_ORDERED): State.EVICTING,
    (State.PARKING, Move.SHELVED): State.PARKED,
    (State.PARKING, Move.MOVE_FAILED): State.EVICTING,
    (State.PARKED, Move.WANTED): State.QUEUED,
    (State.PARKED, Move.EVICTION_ORDERED): State.EVICTING,
    (State.UNPARKING, Move.LOADED): State.READY,
    (State.UNPARKING, Move.MOVE_FAILED): State.EVICTING,
    (State.EVICTING, Move.FREED): State.ABSENT,
}

IDLE = frozenset({State.READY, State.PARKED})
"""In memory, and free to go if nobody uses or pins it."""

MOVING = frozenset({State.LOADING, State.UNPARKING})
"""On its way in: what `loads_parallel` bounds."""

WAITABLE = frozenset(
    {State.QUEUED, State.LOADING, State.DRAINING, State.PARKING, State.UNPARKING, State.EVICTING}
)
"""Requests may wait for it, because an answer is on its way."""


def after(state: State, move: Move) -> State:
    """The state that follows. Raises IllegalMove where the table has none."""
    try:
        return MOVES[state, move]
    except KeyError:
        raise IllegalMove(f"a copy that is {state.value} can't be {move.value}") from None


def diagram() -> str:
    """The table in words, a line for each state: the one at the head of this file."""
    return "\n".join(f"{state.value:<10} → {_next(state)}" for state in State if _next(state))


def _next(state: State) -> str:
    return ", ".join(
        f"{after_.value}: {move.value}"
        for (before, move), after_ in MOVES.items()
        if before is state
    )


class IllegalMove(errors.MeshError):
    """A mistake of ours: something happened to a copy that can't happen in its state."""
