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


class State(enum.Enum):
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


class Move(enum.Enum):
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


MOVES: dict[tuple[State, Move], State] = {
    (State.ABSENT, Move.WANTED): State.WAITING,
    (State.WAITING, Move.START_ORDERED): State.STARTING,
    (State.WAITING, Move.GIVEN_UP): State.ABSENT,
    (State.STARTING, Move.ANSWERED): State.READY,
    (State.STARTING, Move.LOST): State.FAILED,
    (State.STARTING, Move.STOP_ORDERED): State.STOPPING,
    (State.READY, Move.LEAVE_ORDERED): State.LEAVING,
    (State.READY, Move.LOST): State.FAILED,
    (State.LEAVING, Move.KEPT): State.READY,
    (State.LEAVING, Move.SLEEP_ORDERED): State.DROWSING,
    (State.LEAVING, Move.STOP_ORDERED): State.STOPPING,
    (State.LEAVING, Move.LOST): State.FAILED,
    (State.DROWSING, Move.SLEPT): State.ASLEEP,
    (State.DROWSING, Move.LOST): State.FAILED,
    (State.ASLEEP, Move.WAKE_ORDERED): State.WAKING,
    (State.ASLEEP, Move.STOP_ORDERED): State.STOPPING,
    (State.ASLEEP, Move.LOST): State.FAILED,
    (State.WAKING, Move.ANSWERED): State.READY,
    (State.WAKING, Move.STOP_ORDERED): State.STOPPING,
    (State.WAKING, Move.LOST): State.FAILED,
    (State.FAILED, Move.START_ORDERED): State.STARTING,
    (State.FAILED, Move.STOP_ORDERED): State.STOPPING,
    (State.STOPPING, Move.STOPPED): State.ABSENT,
}

SERVING = frozenset({State.READY, State.LEAVING})
"""Requests that reach it are answered."""

COMING = frozenset({State.STARTING, State.WAKING})
"""It will answer, if all goes well."""

AWAKE = SERVING | COMING | {State.DROWSING}
"""It uses the memory of its GPUs, by order: one of a group at a time."""

LOSABLE = frozenset(state for state, move in MOVES if move is Move.LOST)
"""There is something to be lost. Of one that is stopping all goes anyway, and its GPUs are free when that is done."""

PLACED = frozenset(State) - {State.ABSENT, State.WAITING}
"""GPUs are kept for it."""

SAID: Mapping[State, llm_spec.ReplicaState] = {
    State.WAITING: "starting",
    State.STARTING: "starting",
    State.WAKING: "starting",
    State.READY: "ready",
    State.LEAVING: "draining",
    State.DROWSING: "draining",
    State.STOPPING: "draining",
    State.ASLEEP: "asleep",
    State.FAILED: "failed",
}
"""What users are told."""


def after(state: State, move: Move) -> State:
    """The state that follows. Raises IllegalMove where the table has none."""
    try:
        return MOVES[state, move]
    except KeyError:
        raise IllegalMove(f"a replica that is {state.value} can't be {move.value}") from None


def diagram() -> str:
    """The table in words, a line for each state: the one at the head of this file."""
    return "\n".join(f"{state.value:<8} → {_next(state)}" for state in State)


def _next(state: State) -> str:
    return ", ".join(
        f"{after_.value}: {move.value}"
        for (before, move), after_ in MOVES.items()
        if before is state
    )


class IllegalMove(errors.MeshError):
    """A mistake of ours: something happened to a replica that can't happen in its state."""
