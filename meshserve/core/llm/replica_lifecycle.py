"""The life of one replica of an LLM: its states and every legal move. Nothing else decides what may follow what.

absent   → waiting: wanted
waiting  → starting: start ordered, absent: given up
starting → ready: answered, failed: lost, stopping: stop ordered
ready    → leaving: leave ordered, failed: lost
leaving  → ready: kept, drowsing: sleep ordered, stopping: stop ordered, failed: lost
drowsing → asleep: slept, failed: lost
asleep   → waking: wake ordered, stopping: stop ordered, failed: lost
waking   → ready: answered, stopping: stop ordered, failed: lost
failed   → starting: start ordered, stopping: stop ordered
stopping → absent: stopped
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from meshserve import errors
from meshserve.core.values import llm_spec


class ReplicaPhase(enum.Enum):
    """Where a replica is in its life.

    Waiting: for GPUs, or for its turn. Leaving: it serves, while gateways learn to send it nothing more. Drowsing: on its way to sleep.
    """

    ABSENT = "absent"
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    DROWSING = "drowsing"
    ASLEEP = "asleep"
    WAKING = "waking"
    FAILED = "failed"
    STOPPING = "stopping"


class ReplicaMove(enum.Enum):
    """What can happen to a replica."""

    WANTED = "wanted"
    GIVEN_UP = "given up"
    START_ORDERED = "start ordered"
    ANSWERED = "answered"
    LEAVE_ORDERED = "leave ordered"
    KEPT = "kept"
    SLEEP_ORDERED = "sleep ordered"
    SLEPT = "slept"
    WAKE_ORDERED = "wake ordered"
    STOP_ORDERED = "stop ordered"
    STOPPED = "stopped"
    LOST = "lost"


MOVES: dict[tuple[ReplicaPhase, ReplicaMove], ReplicaPhase] = {
    (ReplicaPhase.ABSENT, ReplicaMove.WANTED): ReplicaPhase.WAITING,
    (ReplicaPhase.WAITING, ReplicaMove.START_ORDERED): ReplicaPhase.STARTING,
    (ReplicaPhase.WAITING, ReplicaMove.GIVEN_UP): ReplicaPhase.ABSENT,
    (ReplicaPhase.STARTING, ReplicaMove.ANSWERED): ReplicaPhase.READY,
    (ReplicaPhase.STARTING, ReplicaMove.LOST): ReplicaPhase.FAILED,
    (ReplicaPhase.STARTING, ReplicaMove.STOP_ORDERED): ReplicaPhase.STOPPING,
    (ReplicaPhase.READY, ReplicaMove.LEAVE_ORDERED): ReplicaPhase.LEAVING,
    (ReplicaPhase.READY, ReplicaMove.LOST): ReplicaPhase.FAILED,
    (ReplicaPhase.LEAVING, ReplicaMove.KEPT): ReplicaPhase.READY,
    (ReplicaPhase.LEAVING, ReplicaMove.SLEEP_ORDERED): ReplicaPhase.DROWSING,
    (ReplicaPhase.LEAVING, ReplicaMove.STOP_ORDERED): ReplicaPhase.STOPPING,
    (ReplicaPhase.LEAVING, ReplicaMove.LOST): ReplicaPhase.FAILED,
    (ReplicaPhase.DROWSING, ReplicaMove.SLEPT): ReplicaPhase.ASLEEP,
    (ReplicaPhase.DROWSING, ReplicaMove.LOST): ReplicaPhase.FAILED,
    (ReplicaPhase.ASLEEP, ReplicaMove.WAKE_ORDERED): ReplicaPhase.WAKING,
    (ReplicaPhase.ASLEEP, ReplicaMove.STOP_ORDERED): ReplicaPhase.STOPPING,
    (ReplicaPhase.ASLEEP, ReplicaMove.LOST): ReplicaPhase.FAILED,
    (ReplicaPhase.WAKING, ReplicaMove.ANSWERED): ReplicaPhase.READY,
    (ReplicaPhase.WAKING, ReplicaMove.STOP_ORDERED): ReplicaPhase.STOPPING,
    (ReplicaPhase.WAKING, ReplicaMove.LOST): ReplicaPhase.FAILED,
    (ReplicaPhase.FAILED, ReplicaMove.START_ORDERED): ReplicaPhase.STARTING,
    (ReplicaPhase.FAILED, ReplicaMove.STOP_ORDERED): ReplicaPhase.STOPPING,
    (ReplicaPhase.STOPPING, ReplicaMove.STOPPED): ReplicaPhase.ABSENT,
}

SERVING = frozenset({ReplicaPhase.READY, ReplicaPhase.LEAVING})
"""Requests that reach it are answered."""

COMING = frozenset({ReplicaPhase.STARTING, ReplicaPhase.WAKING})
"""It will answer, if all goes well."""

AWAKE = SERVING | COMING | {ReplicaPhase.DROWSING}
"""It uses the memory of its GPUs, by order: one of a group at a time."""

LOSABLE = frozenset(state for state, move in MOVES if move is ReplicaMove.LOST)
"""There is something to be lost. Of one that is stopping all goes anyway, and its GPUs are free when that is done."""

PLACED = frozenset(ReplicaPhase) - {ReplicaPhase.ABSENT, ReplicaPhase.WAITING}
"""GPUs are kept for it."""

SAID: Mapping[ReplicaPhase, llm_spec.ReplicaState] = {
    ReplicaPhase.WAITING: "starting",
    ReplicaPhase.STARTING: "starting",
    ReplicaPhase.WAKING: "starting",
    ReplicaPhase.READY: "ready",
    ReplicaPhase.LEAVING: "draining",
    ReplicaPhase.DROWSING: "draining",
    ReplicaPhase.STOPPING: "draining",
    ReplicaPhase.ASLEEP: "asleep",
    ReplicaPhase.FAILED: "failed",
}
"""What users are told."""


def after(state: ReplicaPhase, move: ReplicaMove) -> ReplicaPhase:
    """The state that follows. Raises IllegalMove where the table has none."""
    try:
        return MOVES[state, move]
    except KeyError:
        raise IllegalMove(f"a replica that is {state.value} can't be {move.value}") from None


def diagram() -> str:
    """The table in words, a line for each state: the one at the head of this file."""
    return "\n".join(f"{state.value:<8} → {_next(state)}" for state in ReplicaPhase)


def _next(state: ReplicaPhase) -> str:
    return ", ".join(
        f"{after_.value}: {move.value}"
        for (before, move), after_ in MOVES.items()
        if before is state
    )


class IllegalMove(errors.MeshError):
    """A mistake of ours: something happened to a replica that can't happen in its state."""
