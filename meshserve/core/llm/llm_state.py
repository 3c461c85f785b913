"""One LLM as the mesh knows it: its replicas, and the requests that wait for one of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from meshserve.core.llm import replica_state
from meshserve.core.llm.replica_state import ReplicaPhase
from meshserve.core.values import llm_spec, model_stats, snapshots

DEFAULT_EXPECTED_S = 60.0
"""Expected duration of a start or a wake before any was measured."""

NEWEST_WEIGHT = 0.3
KEPT_UNUSED = frozenset(ReplicaPhase) - {ReplicaPhase.WAITING, ReplicaPhase.FAILED}
"""Phases in which a replica stays for `idle_timeout_s` without requests."""

PUBLIC_STATE_ORDER = ("ready", "starting", "asleep", "draining", "failed")


@dataclass(slots=True)
class DurationEstimate:
    """Measured durations of starts or wakes: their count and total, and the expected next one."""

    stat: model_stats.DurationStat = field(default_factory=model_stats.DurationStat)
    expected_s: float = DEFAULT_EXPECTED_S

    def record(self, took_s: float) -> None:
        """Add a measurement. `expected_s` is the exponentially weighted mean of all."""
        # New measurements count more: a second load finds the weights in the page cache.
        known_s = self.expected_s if self.stat.count else took_s
        self.expected_s = known_s + NEWEST_WEIGHT * (took_s - known_s)
        self.stat.record(took_s)


@dataclass(frozen=True, slots=True)
class HeldRequest:
    """A request that has waited since `since_s`, with a body of `size_bytes` at a gateway."""

    ticket: str
    size_bytes: int
    since_s: float


class HoldQueue:
    """The requests that wait for one LLM in order of arrival, bounded in number, bytes and time."""

    def __init__(self) -> None:
        # In the order of arrival, which a dict keeps.
        self._requests: dict[str, HeldRequest] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, ticket: str) -> bool:
        return ticket in self._requests

    def __iter__(self) -> Iterator[HeldRequest]:
        return iter(tuple(self._requests.values()))

    @property
    def since_s(self) -> float | None:
        """The time at which the first request began to wait, None without requests."""
        return next((request.since_s for request in self._requests.values()), None)

    def refusal(self, limits: llm_spec.HoldLimits, size_bytes: int) -> str:
        """Return why one more request of `size_bytes` may not wait, "" if it may."""
        if len(self) >= limits.requests_max:
            return f"{len(self)} requests wait for it already"
        if self.size_bytes + size_bytes > limits.bytes_max:
            return (
                f"requests of {self.size_bytes} bytes wait for it already, "
                f"and {limits.bytes_max} may"
            )
        return ""

    def add(self, request: HeldRequest) -> None:
        """Append a request. Its ticket must not wait already."""
        assert request.ticket not in self._requests, f"ticket {request.ticket!r} waits already"
        self._requests[request.ticket] = request
        self.size_bytes += request.size_bytes

    def remove(self, ticket: str) -> None:
        """Remove a request, if it waits."""
        request = self._requests.pop(ticket, None)
        self.size_bytes -= request.size_bytes if request else 0

    def take_all(self) -> list[str]:
        """Remove all requests and return their tickets in order."""
        tickets = list(self._requests)
        self._requests.clear()
        self.size_bytes = 0
        return tickets

    def take_overdue(self, limits: llm_spec.HoldLimits, now_s: float) -> list[str]:
        """Remove the requests that have waited for `wait_s_max` or longer; return their tickets."""
        overdue = [
            request.ticket for request in self if now_s - request.since_s >= limits.wait_s_max
        ]
        for ticket in overdue:
            self.remove(ticket)
        return overdue

    def take_surplus(self, limits: llm_spec.HoldLimits) -> list[str]:
        """Remove the newest requests until the rest is within the limits; return their tickets."""
        # The newest requests have waited least and still have the longest wait ahead.
        surplus: list[str] = []
        while len(self) > limits.requests_max or self.size_bytes > limits.bytes_max:
            surplus.append(next(reversed(self._requests)))
            self.remove(surplus[-1])
        return surplus

    def check(self, limits: llm_spec.HoldLimits) -> None:
        """Assert that the queue keeps its limits and order and counts bytes right."""
        assert len(self) <= limits.requests_max
        assert self.size_bytes == sum(request.size_bytes for request in self) <= limits.bytes_max
        arrivals = [request.since_s for request in self]
        assert arrivals == sorted(arrivals)


@dataclass(slots=True)
class LlmRecord:
    """One LLM. `is_wanted` says whether the configuration has it.

    `overloaded_s` and `quiet_s` are the times at which its replicas began to have too much or too
    little to do. Gateways were last ordered to apply `route`, in the snapshot of `revision`.
    `retries` outlive their replicas, so that failures in a row count across stops.
    """

    name: str
    spec: llm_spec.LlmSpec
    is_wanted: bool = False
    replicas: dict[str, replica_state.ReplicaRecord] = field(default_factory=dict)
    held: HoldQueue = field(default_factory=HoldQueue)
    retries: dict[str, replica_state.ReplicaRetry] = field(default_factory=dict)
    desired_replicas: int = 0
    # Not 0, which would be recent on a machine whose clock has just begun.
    used_s: float = -math.inf
    overloaded_s: float | None = None
    quiet_s: float | None = None
    starts: DurationEstimate = field(default_factory=DurationEstimate)
    wakes: DurationEstimate = field(default_factory=DurationEstimate)
    turned_away: int = 0
    route: snapshots.LlmRoute | None = None
    revision: int = 0

    @property
    def state(self) -> str:
        """The state that users see: that of the replica that is nearest to ready.

        Without replicas it is `idle`, or `failed` if the last one failed.
        """
        states = {replica.public_state for replica in self.replicas.values()}
        without_replicas = "failed" if self.reason and not states else "idle"
        return next((state for state in PUBLIC_STATE_ORDER if state in states), without_replicas)

    @property
    def reason(self) -> str:
        """Why a replica does not serve, in words; "" if nothing is wrong."""
        reasons = [
            replica.reason or replica.update_retry.reason for replica in self.replicas.values()
        ] or [retry.reason for retry in self.retries.values()]
        return next(filter(None, reasons), "")

    @property
    def start_rank(self) -> tuple[bool, bool]:
        """Sort key: of LLMs that start at one moment those with the smallest keys come first."""
        is_doubtful = any(retry.is_doubtful for retry in self.retries.values())
        return (is_doubtful, not self.held)

    def active_replicas(self) -> list[replica_state.ReplicaRecord]:
        """Return the replicas that are not stopping, the ones to keep longest first."""
        return sorted(
            (
                replica
                for replica in self.replicas.values()
                if replica.phase is not ReplicaPhase.STOPPING
            ),
            key=lambda replica: replica.keep_rank,
        )

    def replicas_in(self, phases: Collection[ReplicaPhase]) -> list[replica_state.ReplicaRecord]:
        """Return the replicas that are in one of `phases`."""
        return [replica for replica in self.replicas.values() if replica.phase in phases]

    def next_id(self) -> str:
        """Return an id for one more replica: the smallest number that is free."""
        # A replica with a reused number inherits the failures of the last one that had it.
        number = next(
            number
            for number in range(len(self.replicas) + 1)
            if f"{self.name}/{number}" not in self.replicas
        )
        return f"{self.name}/{number}"

    def reports(self) -> list[llm_spec.LlmReport]:
        """Return the last reports of the replicas that serve."""
        serving = self.replicas_in(replica_state.SERVING)
        return [replica.report for replica in serving if replica.report is not None]

    def is_used(self, now_s: float) -> bool:
        """Return whether requests wait or run, or did so for an engine that is up not long ago."""
        is_busy = len(self.held) > 0 or any(replica.is_busy for replica in self.replicas.values())
        # What does not serve yet, or has failed, is kept for requests that wait for it alone.
        is_up = any(
            replica.phase in KEPT_UNUSED and not replica.is_blocking(now_s)
            for replica in self.replicas.values()
        )
        return is_busy or (is_up and now_s - self.used_s < self.spec.idle_timeout_s)

    def desired_route(self) -> snapshots.LlmRoute | None:
        """Return the route that gateways should have, None if the LLM is not wanted.

        Without a ready replica the draining ones stay in the route, for requests that a gateway
        lets through before it has learned to hold them.
        """
        if not self.is_wanted:
            return None
        ready = self.replicas_in({ReplicaPhase.READY})
        serving = ready or self.replicas_in({ReplicaPhase.DRAINING})
        members = tuple(
            snapshots.RingMember(replica.id, replica.endpoint)
            for replica in serving
            if replica.endpoint
        )
        return snapshots.LlmRoute(
            self.name,
            (self.name, *self.spec.aliases, *self._served_adapters(ready)),
            members,
            not ready,
            self.spec.held.wait_s_max,
            self.spec.aliases,
        )

    def _served_adapters(self, ready: Collection[replica_state.ReplicaRecord]) -> Iterator[str]:
        """Yield the adapters that every ready replica has, all of them while none is ready."""
        for adapter in self.spec.adapters:
            names = ({own.name for own in replica.spec.adapters} for replica in ready)
            if all(adapter.name in own for own in names):
                yield adapter.name

    def blocking_failure(self, now_s: float) -> replica_state.ReplicaRetry | None:
        """Return a failure while all replicas are failing, None while one may still come up."""
        active = self.active_replicas()
        if active:
            is_blocked = all(replica.is_blocking(now_s) for replica in active)
            return active[0].retry if is_blocked else None
        pending = (
            retry
            for retry in self.retries.values()
            if retry.is_doubtful and not retry.is_due(now_s)
        )
        return min(pending, key=lambda retry: retry.retry_at_s, default=None)

    def expected_s(self, now_s: float) -> float:
        """Return the number of seconds until a replica is expected to serve."""
        return min(
            (self._expected_of(replica, now_s) for replica in self.active_replicas()),
            default=self._retry_s(now_s) + self.starts.expected_s,
        )

    def _expected_of(self, replica: replica_state.ReplicaRecord, now_s: float) -> float:
        match replica.phase:
            case ReplicaPhase.READY | ReplicaPhase.DRAINING:
                return 1.0  # Only a gateway's configuration is still missing.
            case ReplicaPhase.STARTING:
                # A start that takes longer than expected may end any moment.
                return max(1.0, replica.ordered_s + self.starts.expected_s - now_s)
            case ReplicaPhase.WAKING:
                return max(1.0, replica.ordered_s + self.wakes.expected_s - now_s)
            case ReplicaPhase.ASLEEP | ReplicaPhase.GOING_TO_SLEEP:
                return self.wakes.expected_s
            case _:
                return max(0.0, replica.retry.retry_at_s - now_s) + self.starts.expected_s

    def _retry_s(self, now_s: float) -> float:
        waits_s = (retry.retry_at_s - now_s for retry in self.retries.values())
        return max(0.0, max(waits_s, default=0.0))
