"""The lifecycle of one copy on a worker: its states and every legal move.

absent     → queued: requested
queued     → loading: admitted, onloading: onload ordered, absent: given up, offloaded: onload given up
loading    → ready: loaded, failed: load failed, stuck: timed out
stuck      → ready: loaded, failed: load failed
failed     → queued: requested
ready      → draining: drain ordered, offloading: offload ordered, evicting: eviction ordered
draining   → evicting: eviction ordered
offloading → offloaded: offloaded, evicting: move failed
offloaded  → queued: requested, evicting: eviction ordered
onloading  → ready: loaded, evicting: move failed
evicting   → absent: freed
"""

from __future__ import annotations

import enum

from meshserve import errors


class CopyPhase(enum.Enum):
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
    OFFLOADING = "offloading"
    OFFLOADED = "offloaded"
    ONLOADING = "onloading"
    EVICTING = "evicting"


class CopyMove(enum.Enum):
    """What can happen to a copy."""

    REQUESTED = "requested"
    ADMITTED = "admitted"
    ONLOAD_ORDERED = "onload ordered"
    LOADED = "loaded"
    LOAD_FAILED = "load failed"
    TIMED_OUT = "timed out"
    DRAIN_ORDERED = "drain ordered"
    OFFLOAD_ORDERED = "offload ordered"
    OFFLOADED = "offloaded"
    MOVE_FAILED = "move failed"
    EVICTION_ORDERED = "eviction ordered"
    FREED = "freed"
    GIVEN_UP = "given up"
    ONLOAD_GIVEN_UP = "onload given up"


MOVES: dict[tuple[CopyPhase, CopyMove], CopyPhase] = {
    (CopyPhase.ABSENT, CopyMove.REQUESTED): CopyPhase.QUEUED,
    (CopyPhase.QUEUED, CopyMove.ADMITTED): CopyPhase.LOADING,
    (CopyPhase.QUEUED, CopyMove.ONLOAD_ORDERED): CopyPhase.ONLOADING,
    (CopyPhase.QUEUED, CopyMove.GIVEN_UP): CopyPhase.ABSENT,
    (CopyPhase.QUEUED, CopyMove.ONLOAD_GIVEN_UP): CopyPhase.OFFLOADED,
    (CopyPhase.LOADING, CopyMove.LOADED): CopyPhase.READY,
    (CopyPhase.LOADING, CopyMove.LOAD_FAILED): CopyPhase.FAILED,
    (CopyPhase.LOADING, CopyMove.TIMED_OUT): CopyPhase.STUCK,
    (CopyPhase.STUCK, CopyMove.LOADED): CopyPhase.READY,
    (CopyPhase.STUCK, CopyMove.LOAD_FAILED): CopyPhase.FAILED,
    (CopyPhase.FAILED, CopyMove.REQUESTED): CopyPhase.QUEUED,
    (CopyPhase.READY, CopyMove.DRAIN_ORDERED): CopyPhase.DRAINING,
    (CopyPhase.READY, CopyMove.OFFLOAD_ORDERED): CopyPhase.OFFLOADING,
    (CopyPhase.READY, CopyMove.EVICTION_ORDERED): CopyPhase.EVICTING,
    (CopyPhase.DRAINING, CopyMove.EVICTION_ORDERED): CopyPhase.EVICTING,
    (CopyPhase.OFFLOADING, CopyMove.OFFLOADED): CopyPhase.OFFLOADED,
    (CopyPhase.OFFLOADING, CopyMove.MOVE_FAILED): CopyPhase.EVICTING,
    (CopyPhase.OFFLOADED, CopyMove.REQUESTED): CopyPhase.QUEUED,
    (CopyPhase.OFFLOADED, CopyMove.EVICTION_ORDERED): CopyPhase.EVICTING,
    (CopyPhase.ONLOADING, CopyMove.LOADED): CopyPhase.READY,
    (CopyPhase.ONLOADING, CopyMove.MOVE_FAILED): CopyPhase.EVICTING,
    (CopyPhase.EVICTING, CopyMove.FREED): CopyPhase.ABSENT,
}

IDLE = frozenset({CopyPhase.READY, CopyPhase.OFFLOADED})
"""In memory, and free to go if nobody uses or pins it."""

MOVING = frozenset({CopyPhase.LOADING, CopyPhase.ONLOADING})
"""On its way in: what `loads_parallel` bounds."""

WAITABLE = frozenset(
    {
        CopyPhase.QUEUED,
        CopyPhase.LOADING,
        CopyPhase.DRAINING,
        CopyPhase.OFFLOADING,
        CopyPhase.ONLOADING,
        CopyPhase.EVICTING,
    }
)
"""Requests may wait for it, because an answer is on its way."""


def after(state: CopyPhase, move: CopyMove) -> CopyPhase:
    """The state that follows. Raises IllegalMove where the table has none."""
    try:
        return MOVES[state, move]
    except KeyError:
        raise IllegalMove(f"a copy that is {state.value} can't be {move.value}") from None


def diagram() -> str:
    """The table in words, a line for each state: the one at the head of this file."""
    return "\n".join(f"{state.value:<10} → {_next(state)}" for state in CopyPhase if _next(state))


def _next(state: CopyPhase) -> str:
    return ", ".join(
        f"{after_.value}: {move.value}"
        for (before, move), after_ in MOVES.items()
        if before is state
    )


class IllegalMove(errors.MeshError):
    """A mistake of ours: something happened to a copy that can't happen in its state."""
