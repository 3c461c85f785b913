"""One replica of an LLM: the table of its lifecycle, and what the mesh knows of it.

absent         → waiting: wanted
waiting        → starting: start ordered, absent: given up
starting       → ready: answered, failed: lost, stopping: stop ordered
ready          → draining: drain ordered, failed: lost
draining       → ready: kept, going to sleep: sleep ordered, stopping: stop ordered, failed: lost
going to sleep → asleep: slept, failed: lost
asleep         → waking: wake ordered, stopping: stop ordered, failed: lost
waking         → ready: answered, stopping: stop ordered, failed: lost
failed         → starting: start ordered, stopping: stop ordered
stopping       → absent: stopped

Each line is "phase → next phase: move"; the table MOVES below decides.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from meshserve.core import backoff, state_table
from meshserve.core.values import llm_spec, model

BACKOFF = backoff.BackoffPolicy(base_s=1.0, cap_s=60.0, calm_s=60.0)
LASTING_BACKOFF = backoff.BackoffPolicy(base_s=60.0, cap_s=600.0, calm_s=60.0)
"""For failures that do not pass by themselves: each try costs minutes of cores and memory."""

UPDATE_BACKOFF = backoff.BackoffPolicy(base_s=10.0, cap_s=300.0)


class ReplicaPhase(enum.Enum):
    """Where a replica is in its lifecycle.

    WAITING: GPUs or the LLM's turn are missing. DRAINING: the replica still serves, while gateways
    stop sending requests to it.
    """

    ABSENT = "absent"
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GOING_TO_SLEEP = "going to sleep"
    ASLEEP = "asleep"
    WAKING = "waking"
    FAILED = "failed"
    STOPPING = "stopping"


class ReplicaMove(enum.Enum):
    """The moves between phases."""

    WANTED = "wanted"
    GIVEN_UP = "given up"
    START_ORDERED = "start ordered"
    ANSWERED = "answered"
    DRAIN_ORDERED = "drain ordered"
    KEPT = "kept"
    SLEEP_ORDERED = "sleep ordered"
    SLEPT = "slept"
    WAKE_ORDERED = "wake ordered"
    STOP_ORDERED = "stop ordered"
    STOPPED = "stopped"
    LOST = "lost"


# A ready replica stops or sleeps only after DRAINING, so that no request reaches a stopped engine.
# A stopping replica can't be lost: it ends anyway, and its GPUs are free only afterwards.
MOVES: dict[tuple[ReplicaPhase, ReplicaMove], ReplicaPhase] = {
    (ReplicaPhase.ABSENT, ReplicaMove.WANTED): ReplicaPhase.WAITING,
    (ReplicaPhase.WAITING, ReplicaMove.START_ORDERED): ReplicaPhase.STARTING,
    (ReplicaPhase.WAITING, ReplicaMove.GIVEN_UP): ReplicaPhase.ABSENT,
    (ReplicaPhase.STARTING, ReplicaMove.ANSWERED): ReplicaPhase.READY,
    (ReplicaPhase.STARTING, ReplicaMove.LOST): ReplicaPhase.FAILED,
    (ReplicaPhase.STARTING, ReplicaMove.STOP_ORDERED): ReplicaPhase.STOPPING,
    (ReplicaPhase.READY, ReplicaMove.DRAIN_ORDERED): ReplicaPhase.DRAINING,
    (ReplicaPhase.READY, ReplicaMove.LOST): ReplicaPhase.FAILED,
    (ReplicaPhase.DRAINING, ReplicaMove.KEPT): ReplicaPhase.READY,
    (ReplicaPhase.DRAINING, ReplicaMove.SLEEP_ORDERED): ReplicaPhase.GOING_TO_SLEEP,
    (ReplicaPhase.DRAINING, ReplicaMove.STOP_ORDERED): ReplicaPhase.STOPPING,
    (ReplicaPhase.DRAINING, ReplicaMove.LOST): ReplicaPhase.FAILED,
    (ReplicaPhase.GOING_TO_SLEEP, ReplicaMove.SLEPT): ReplicaPhase.ASLEEP,
    (ReplicaPhase.GOING_TO_SLEEP, ReplicaMove.LOST): ReplicaPhase.FAILED,
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
LIFECYCLE = state_table.Lifecycle("replica", MOVES)
ReplicaMoveLog: TypeAlias = state_table.MoveLog[ReplicaPhase, ReplicaMove]

SERVING = frozenset({ReplicaPhase.READY, ReplicaPhase.DRAINING})
"""Phases in which requests that reach the replica are answered."""

COMING_UP = frozenset({ReplicaPhase.STARTING, ReplicaPhase.WAKING})
"""Phases in which a start or wake has been ordered and is not done."""

AWAKE = SERVING | COMING_UP | {ReplicaPhase.GOING_TO_SLEEP}
"""Phases in which the replica uses the memory of its GPUs: one replica of a group at a time."""

LOSABLE = frozenset(phase for phase, move in MOVES if move is ReplicaMove.LOST)
"""Phases in which a process or an engine exists that can be lost."""

PLACED = frozenset(ReplicaPhase) - {ReplicaPhase.ABSENT, ReplicaPhase.WAITING}
"""Phases in which the replica has a plan, and its GPUs are booked."""

# Users see fewer states than phases: a replica that waits for GPUs, starts or wakes needs nothing
# from them, and one that goes to sleep or stops takes no requests any more.
PUBLIC_STATES: Mapping[ReplicaPhase, llm_spec.ReplicaState] = {
    ReplicaPhase.WAITING: "starting",
    ReplicaPhase.STARTING: "starting",
    ReplicaPhase.WAKING: "starting",
    ReplicaPhase.READY: "ready",
    ReplicaPhase.DRAINING: "draining",
    ReplicaPhase.GOING_TO_SLEEP: "draining",
    ReplicaPhase.STOPPING: "draining",
    ReplicaPhase.ASLEEP: "asleep",
    ReplicaPhase.FAILED: "failed",
}
"""The state that commands, views and metrics show for each phase."""

# Replicas come in the order of the time they need until they serve. One that is going to sleep
# must finish that before it can wake.
KEEP_ORDER = (
    ReplicaPhase.READY,
    ReplicaPhase.DRAINING,
    ReplicaPhase.WAKING,
    ReplicaPhase.STARTING,
    ReplicaPhase.ASLEEP,
    ReplicaPhase.GOING_TO_SLEEP,
    ReplicaPhase.FAILED,
    ReplicaPhase.WAITING,
)
"""Phases by rank: of too many replicas the ones in the first phases are kept."""


@dataclass(slots=True)
class ReplicaRetry(backoff.Backoff):
    """A replica's failures in a row, and its next try. `reason` is "" once it has served again.

    `cause` is the reason without what follows from it. `has_served`: it has served before.
    """

    policy: backoff.BackoffPolicy = BACKOFF
    reason: str = ""
    cause: str = ""
    has_served: bool = False

    @property
    def is_doubtful(self) -> bool:
        """Whether a further try may fail: not after the first loss of one that has served."""
        return self.failures > int(self.has_served)

    def fail(self, cause: str, now_s: float, *, is_permanent: bool) -> None:
        """Record a failure. A permanent one, or one that comes again, is tried again slowly."""
        is_lasting = is_permanent or cause == self.cause
        self.policy = LASTING_BACKOFF if is_lasting else BACKOFF
        self.record_failure(now_s)
        self.cause = self.reason = cause
        if is_lasting:
            wait_s = self.retry_at_s - now_s
            self.reason = (
                f"{cause} (this does not pass by itself: the next try is {wait_s:.0f} s after "
                "this one, or follows a change)"
            )

    def forget_cause(self) -> None:
        """Note that the replica serves."""
        self.reason = self.cause = ""
        self.has_served = True


@dataclass(slots=True)
class ReplicaRecord:
    """One replica. `reason` says why it is not ready, where its state alone does not.

    `ordered_s` is the time of the last order to start or wake, `up_s` the time since which it
    serves. `pid` is 0 while no process is known. `spec` is what its engine follows; `update` is
    the spec that it was last told to follow, whose failure is in `update_retry`.
    """

    id: str
    spec: llm_spec.LlmSpec
    retry: ReplicaRetry
    phase: ReplicaPhase = ReplicaPhase.WAITING
    plan: llm_spec.ReplicaPlan | None = None
    endpoint: model.Endpoint | None = None
    pid: int = 0
    reason: str = ""
    ordered_s: float = 0.0
    up_s: float = 0.0
    starts: int = 0
    update: llm_spec.LlmSpec | None = None
    update_retry: ReplicaRetry = field(default_factory=lambda: ReplicaRetry(UPDATE_BACKOFF))
    is_updating: bool = False
    report: llm_spec.LlmReport | None = field(default=None, repr=False)
    log: ReplicaMoveLog = field(
        default_factory=lambda: state_table.MoveLog(LIFECYCLE), repr=False, compare=False
    )

    def move(self, move: ReplicaMove) -> None:
        """Apply a lifecycle move. Raises IllegalMove, with the moves before, if it can't follow."""
        self.phase = self.log.after(self.id, self.phase, move)

    def come_up(self, now_s: float) -> None:
        """Note that the engine answers, and clear the reasons of earlier failures."""
        self.move(ReplicaMove.ANSWERED)
        self.up_s, self.report = now_s, None
        self.reason = ""
        self.retry.forget_cause()

    def begin_update(self, spec: llm_spec.LlmSpec) -> None:
        """Note that the engine was told to follow a spec."""
        if spec != self.update:
            # The failures of another update say nothing about this one.
            self.update_retry.reset()
        self.update, self.is_updating = spec, True

    def end_update(self, spec: llm_spec.LlmSpec, reason: str, now_s: float) -> None:
        """Note that the engine follows a spec, or why it does not."""
        self.is_updating = False
        self.update_retry.reason = reason
        if reason:
            self.update_retry.record_failure(now_s)
        else:
            self.spec = spec
            self.update_retry.reset()

    def forgive(self, now_s: float) -> None:
        """Forget the failures of a replica that has served for the calm time of its back-off."""
        if self.phase in SERVING and now_s - self.up_s > BACKOFF.calm_s:
            self.retry.reset()

    def fail(self, cause: str, now_s: float, *, is_permanent: bool = False) -> None:
        """Mark the replica failed and schedule the next try, a later one if it may fail again.

        Its GPUs stay booked until it is started again or stopped: processes of the dead engine may
        still hold memory of the GPUs, and both commands end such processes first.
        """
        # Perhaps no report has come since the calm time ended, so it is checked here too.
        self.forgive(now_s)
        self.move(ReplicaMove.LOST)
        self.is_updating = False
        self.retry.fail(cause, now_s, is_permanent=is_permanent)
        self.reason, self.pid, self.endpoint, self.report = self.retry.reason, 0, None, None

    @property
    def public_state(self) -> llm_spec.ReplicaState:
        """The state that users see."""
        return PUBLIC_STATES[self.phase]

    @property
    def holder(self) -> str:
        """The name that its GPUs are booked for: its own, or its share group's."""
        return f"group {self.spec.share}" if self.spec.share else self.id

    @property
    def is_busy(self) -> bool:
        """Whether it has requests. One that serves and has not reported yet may have some."""
        return self.phase in SERVING and (
            self.report is None or bool(self.report.running or self.report.waiting)
        )

    @property
    def is_failing(self) -> bool:
        """Whether the replica has failed and has not served since, even if it starts again now."""
        return self.phase is ReplicaPhase.FAILED or (
            self.phase in COMING_UP and self.retry.failures > 0
        )

    def is_blocking(self, now_s: float) -> bool:
        """Whether nobody should wait for it: it may fail again, and is not tried right now."""
        is_due = self.phase is ReplicaPhase.FAILED and self.retry.is_due(now_s)
        return self.is_failing and self.retry.is_doubtful and not is_due

    @property
    def keep_rank(self) -> tuple[int, int]:
        """Sort key: of too many replicas those with the smallest keys are kept."""
        return KEEP_ORDER.index(self.phase), int(self.id.rpartition("/")[2])
