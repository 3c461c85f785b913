"""What the mesh knows of each LLM and of each of its replicas. Who decides changes it; who asks reads it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from meshserve.core.llm import hold_queue, replica_lifecycle
from meshserve.core.llm.replica_lifecycle import ReplicaMove, ReplicaPhase
from meshserve.core.values import llm_spec, model, model_stats, snapshots

RETRY_S = 1.0
RETRY_S_MAX = 60.0
CALM_S = 60.0
"""A replica that was up for so long is not held to have failed in a row."""

EXPECTED_S = 60.0
"""How long a start or a wake is expected to take before any was measured."""

NEWEST_COUNTS = 0.3
DOUBLINGS_MAX = 16
NOT_THE_ENGINES = (
    "replicas_min",
    "replicas_max",
    "idle_timeout_s",
    "residency_s_min",
    "sleep_level",
    "start_timeout_s",
    "held",
)


def is_same_engine(one: llm_spec.LlmSpec, other: llm_spec.LlmSpec) -> bool:
    """Whether an engine that was started for the one serves the other too: what differs is only when it runs, and who may wait for it."""
    return one == dataclasses.replace(
        other, **{name: getattr(one, name) for name in NOT_THE_ENGINES}
    )


@dataclass(slots=True)
class Pace:
    """How long something takes: all of them counted, the newest ones count most for what is expected."""

    span: model_stats.DurationStat = field(default_factory=model_stats.DurationStat)
    expected_s: float = EXPECTED_S

    def took(self, seconds: float) -> None:
        """It took so long once more."""
        known_s = self.expected_s if self.span.count else seconds
        self.expected_s = known_s + NEWEST_COUNTS * (seconds - known_s)
        self.span.record(seconds)


@dataclass(slots=True)
class StartFailure:
    """How often in a row a replica was lost, why last, where it has not come up since, and when it is tried again."""

    losses: int = 0
    reason: str = ""
    retry_at_s: float = -math.inf

    def happened(self, reason: str, now_s: float) -> None:
        """Once more: the wait doubles up to its bound."""
        self.retry_at_s = now_s + min(RETRY_S * 2.0 ** min(self.losses, DOUBLINGS_MAX), RETRY_S_MAX)
        self.losses, self.reason = self.losses + 1, reason


@dataclass(slots=True)
class ReplicaRecord:
    """One replica. `reason` says why it is not ready, where there is more to say than its state does.

    `ordered_s` is when it was last told to start or wake, `up_s` since when it is up. `pid` is 0 while no process is known.
    """

    id: str
    spec: llm_spec.LlmSpec
    trouble: StartFailure
    state: ReplicaPhase = ReplicaPhase.WAITING
    plan: llm_spec.ReplicaPlan | None = None
    endpoint: model.Endpoint | None = None
    pid: int = 0
    reason: str = ""
    ordered_s: float = 0.0
    up_s: float = 0.0
    starts: int = 0
    report: llm_spec.LlmReport | None = field(default=None, repr=False)

    def move(self, move: ReplicaMove) -> None:
        """It happened to it."""
        self.state = replica_lifecycle.after(self.state, move)

    def calm(self, now_s: float) -> None:
        """It has been up for long enough to count as well."""
        if self.state in replica_lifecycle.SERVING and now_s - self.up_s > CALM_S:
            self.trouble.losses = 0

    def fail(self, reason: str, now_s: float) -> None:
        """It is gone, or good for nothing. What is left of it goes when it is started again or stopped: until then it keeps its GPUs."""
        self.calm(now_s)
        self.move(ReplicaMove.LOST)
        self.trouble.happened(reason, now_s)
        self.reason, self.pid, self.endpoint, self.report = reason, 0, None, None

    @property
    def said(self) -> llm_spec.ReplicaState:
        """Its state as users are told."""
        return replica_lifecycle.SAID[self.state]

    @property
    def holder(self) -> str:
        """In whose name it has its GPUs: its own, or its group's."""
        return f"group {self.spec.share}" if self.spec.share else self.id

    @property
    def is_busy(self) -> bool:
        """Whether it has requests, as far as is known: one that has not reported may have."""
        return self.state in replica_lifecycle.SERVING and (
            self.report is None or bool(self.report.running or self.report.waiting)
        )

    def is_failing(self) -> bool:
        """Whether it failed, and is at most being tried again."""
        return self.state is ReplicaPhase.FAILED or (
            self.state in replica_lifecycle.COMING and self.trouble.losses > 0
        )

    def rank(self) -> tuple[int, int]:
        """Who stays when there are too many: the smallest."""
        order = (
            ReplicaPhase.READY,
            ReplicaPhase.LEAVING,
            ReplicaPhase.WAKING,
            ReplicaPhase.STARTING,
            ReplicaPhase.ASLEEP,
            ReplicaPhase.DROWSING,
            ReplicaPhase.FAILED,
            ReplicaPhase.WAITING,
        )
        return order.index(self.state), int(self.id.rpartition("/")[2])


@dataclass(slots=True)
class LlmRecord:
    """One LLM. `is_wanted`: it is in the configuration. `count`: how many replicas it should have now.

    `used_s` is when it was last in use; `pressed_s` and `quiet_s` since when there is too much or too little to do. `route` is what
    gateways were told last, with the snapshot `revision`. `turned_away` counts requests that were.
    """

    name: str
    spec: llm_spec.LlmSpec
    is_wanted: bool = False
    replicas: dict[str, ReplicaRecord] = field(default_factory=dict)
    held: hold_queue.HoldQueue = field(default_factory=hold_queue.HoldQueue)
    troubles: dict[str, StartFailure] = field(default_factory=dict)
    count: int = 0
    used_s: float = -math.inf
    pressed_s: float | None = None
    quiet_s: float | None = None
    starts: Pace = field(default_factory=Pace)
    wakes: Pace = field(default_factory=Pace)
    turned_away: int = 0
    route: snapshots.LlmRoute | None = None
    revision: int = 0

    @property
    def state(self) -> str:
        """Its state as users are told: that of the replica that is furthest; without any, idle, or failed where the last one did."""
        said = {replica.said for replica in self.replicas.values()}
        alone = "failed" if self.reason and not said else "idle"
        return next(
            (
                state
                for state in ("ready", "starting", "asleep", "draining", "failed")
                if state in said
            ),
            alone,
        )

    @property
    def reason(self) -> str:
        """Why not all is well, in words; empty where all is."""
        told = [replica.reason for replica in self.replicas.values()] or [
            trouble.reason for trouble in self.troubles.values()
        ]
        return next(filter(None, told), "")

    def living(self) -> list[ReplicaRecord]:
        """The replicas that are not on their way out, those first that should stay."""
        return sorted(
            (each for each in self.replicas.values() if each.state is not ReplicaPhase.STOPPING),
            key=ReplicaRecord.rank,
        )

    def among(self, states: frozenset[ReplicaPhase] | set[ReplicaPhase]) -> list[ReplicaRecord]:
        """Its replicas in one of these states."""
        return [replica for replica in self.replicas.values() if replica.state in states]

    def next_id(self) -> str:
        """The id of the replica that comes next: numbers that are free again are taken again."""
        number = next(
            number
            for number in range(len(self.replicas) + 1)
            if f"{self.name}/{number}" not in self.replicas
        )
        return f"{self.name}/{number}"

    def reports(self) -> list[llm_spec.LlmReport]:
        """What the replicas that serve told last."""
        return [
            replica.report
            for replica in self.among(replica_lifecycle.SERVING)
            if replica.report is not None
        ]

    def is_used(self, now_s: float) -> bool:
        """Whether somebody uses it, or did so lately."""
        is_busy = len(self.held) > 0 or any(replica.is_busy for replica in self.replicas.values())
        return is_busy or now_s - self.used_s < self.spec.idle_timeout_s

    def wanted_route(self) -> snapshots.LlmRoute | None:
        """What gateways should know of it. A replica that leaves is named while no other serves, for those who come meanwhile."""
        if not self.is_wanted:
            return None
        ready, leaving = self.among({ReplicaPhase.READY}), self.among({ReplicaPhase.LEAVING})
        serving = ready or leaving
        members = tuple(
            snapshots.RingMember(each.id, each.endpoint) for each in serving if each.endpoint
        )
        return snapshots.LlmRoute(
            self.name, self.spec.names, members, not ready, self.spec.held.wait_s_max
        )

    def failure(self, now_s: float) -> StartFailure | None:
        """What keeps every one of its replicas from serving, if nothing else does."""
        living = self.living()
        if living:
            return living[0].trouble if all(each.is_failing() for each in living) else None
        pending = (trouble for trouble in self.troubles.values() if trouble.retry_at_s > now_s)
        return min(pending, key=lambda trouble: trouble.retry_at_s, default=None)

    def expected_s(self, now_s: float) -> float:
        """In how many seconds a replica is expected to serve."""
        return min(
            (self._expected_of(each, now_s) for each in self.living()),
            default=self._retry_s(now_s) + self.starts.expected_s,
        )

    def _expected_of(self, replica: ReplicaRecord, now_s: float) -> float:
        match replica.state:
            case ReplicaPhase.READY | ReplicaPhase.LEAVING:
                return 1.0
            case ReplicaPhase.STARTING:
                return max(1.0, replica.ordered_s + self.starts.expected_s - now_s)
            case ReplicaPhase.WAKING:
                return max(1.0, replica.ordered_s + self.wakes.expected_s - now_s)
            case ReplicaPhase.ASLEEP | ReplicaPhase.DROWSING:
                return self.wakes.expected_s
            case _:
                return max(0.0, replica.trouble.retry_at_s - now_s) + self.starts.expected_s

    def _retry_s(self, now_s: float) -> float:
        return max(
            (max(0.0, trouble.retry_at_s - now_s) for trouble in self.troubles.values()),
            default=0.0,
        )

    def callable_names(self) -> Iterator[str]:
        """Every name that clients may call, while it is served."""
        return iter(self.spec.names if self.is_wanted else ())
