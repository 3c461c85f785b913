"""The records of one worker's memory: its limits and counters, its copies, and what names mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from meshserve import errors
from meshserve.core import backoff
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import IDLE, CopyPhase
from meshserve.core.values import mesh_events, model

NO_WAITERS: dict[ev.Ticket, model.ModelId] = {}
"""The empty dictionary that all records without waiters share; nothing may be added to it.

One dictionary for each record would take as much memory as the rest of the record.
"""

BACKOFF = backoff.BackoffPolicy(base_s=1.0, cap_s=60.0)
"""The waits between tries of a fetch or load that fails."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """The limits of one worker.

    `patience_s` is how long a load that waits for leases to end lets other loads overtake it;
    then copies in use are drained for it.
    """

    budget: model.Footprint
    loads_parallel: int = 4
    waiters_max: int = 1000
    idle_unload_s: float | None = None
    backoff: backoff.BackoffPolicy = BACKOFF
    patience_s: float = 2.0


EVICTED_MAX = 4096
"""Evicted copies that are remembered, to notice those that come back."""


@dataclass(slots=True)
class ResidencyCounts:
    """Totals since the worker began. `evictions`: copies freed for others or for being idle.

    `evicted_s` has the keys of the copies that were freed for others last, each with the time.
    """

    hits: int = 0
    misses: int = 0
    loads: int = 0
    load_failures: int = 0
    evictions: int = 0
    evicted_s: dict[str, float] = field(default_factory=dict)

    def note_eviction(self, key: str, now_s: float) -> None:
        """Remember that a copy was freed to make room, in place of the one freed longest ago."""
        self.evicted_s.pop(key, None)
        self.evicted_s[key] = now_s
        if len(self.evicted_s) > EVICTED_MAX:
            del self.evicted_s[next(iter(self.evicted_s))]


@dataclass(slots=True)
class LoadFailure:
    """The last error of a fetch or load that fails, and the time of the next try."""

    error: errors.MeshError
    retry: backoff.Backoff

    def refusal(self, now_s: float) -> errors.MeshError:
        """Return the error for a request at `now_s`, with the seconds until the next try if any."""
        wait_s = self.retry.retry_at_s - now_s
        # A new object for each request: one object raised in several tasks collects tracebacks.
        return type(self.error)(self.error.message, retry_after_s=wait_s if wait_s > 0 else None)


class Departure(NamedTuple):
    """When a copy was last ordered out of memory, or was too big for it, and why."""

    at_s: float
    kind: mesh_events.CopyKind
    reason: str


# Compared by identity (eq=False): no two records are the same copy, and sets of them stay cheap.
@dataclass(slots=True, eq=False)
class Copy:
    """One copy of a model's artifact: its needs, its bookings, its users and its waiters.

    `need` is the memory that it takes once loaded, which it was at `loaded_s`; a load takes
    `load_extra_bytes` of host memory on top. `deaths` counts those of its process, if it has one of
    its own. `uses` counts uses, old ones less, and `score` is given by the eviction policy. `names`
    are the models that the copy serves, `pins` those of them that are pinned.

    Only the memory account writes `booked`, its parts `freeing` (ordered out, not free yet) and
    `pinned` (kept by a pin), and `is_evictable`.
    """

    key: str
    need: model.Footprint
    load_s: float = 0.0
    can_offload: bool = False
    load_timeout_s: float = 120.0
    load_extra_bytes: int = 0
    state: CopyPhase = CopyPhase.ABSENT
    booked: model.Footprint = model.NO_BYTES
    freeing: model.Footprint = model.NO_BYTES
    pinned: model.Footprint = model.NO_BYTES
    leases: int = 0
    uses: float = 0.0
    score: float = 0.0
    last_used_s: float = 0.0
    since_s: float = 0.0
    is_measured: bool = False
    is_evictable: bool = False
    is_unload_requested: bool = False
    waiters: dict[ev.Ticket, model.ModelId] = field(default_factory=lambda: NO_WAITERS)
    names: set[model.ModelId] = field(default_factory=set)
    pins: frozenset[model.ModelId] = frozenset()
    failure: LoadFailure | None = None
    loaded_s: float = 0.0
    deaths: backoff.Backoff | None = None
    departure: Departure | None = None

    def apply_artifact(self, artifact: ev.ArtifactFetched) -> None:
        """Take over what the artifact promises, but keep what a load here has measured."""
        self.can_offload, self.load_timeout_s = artifact.can_offload, artifact.load_timeout_s
        self.set_load_extra(artifact.load_extra_bytes)
        # A second model of the same bytes may come with a mere hint, which must not replace a
        # measurement; and a load in progress has booked `need` as it was.
        if not self.is_measured and self.booked == model.NO_BYTES:
            self.need, self.load_s = artifact.need, artifact.load_s
            self.is_measured = artifact.load_s > 0

    def set_load_extra(self, load_extra_bytes: int) -> None:
        """Set the extra bytes of the next load; a load in progress keeps those it has booked."""
        if self.state is not CopyPhase.LOADING:
            self.load_extra_bytes = load_extra_bytes

    def record_load(self, footprint: model.Footprint, load_s: float, now_s: float) -> None:
        """Keep what a load that ended at `now_s` has measured: `footprint`, in `load_s` seconds."""
        self.loaded_s = now_s
        self.need, self.load_s, self.is_measured, self.failure = footprint, load_s, True, None

    @property
    def is_good(self) -> bool:
        """Whether its bytes were loaded before, and no load of them has failed since."""
        return self.is_measured and self.failure is None

    @property
    def is_idle(self) -> bool:
        """Whether it is in memory without a lease or a pin."""
        return self.state in IDLE and not (self.leases or self.pins)

    @property
    def is_in_memory(self) -> bool:
        """Whether the copy is in memory or on the way there, and its eviction is not ordered."""
        return self.is_queued_for_onload or self.state not in {
            CopyPhase.ABSENT,
            CopyPhase.QUEUED,
            CopyPhase.FAILED,
            CopyPhase.EVICTING,
        }

    @property
    def is_queued_for_onload(self) -> bool:
        """Whether the copy waits to move from host memory back to the GPU."""
        return self.state is CopyPhase.QUEUED and self.booked != model.NO_BYTES

    @property
    def offloaded_need(self) -> model.Footprint:
        """The footprint of the offloaded copy: all of its bytes are in host memory."""
        return model.Footprint(self.need.host_bytes + self.need.gpu_bytes, 0)

    @property
    def admission_need(self) -> model.Footprint:
        """The bytes that must be free before the copy's load or onload starts.

        A move back to the GPU needs GPU memory only; a load needs its extra bytes as well.
        """
        if self.is_queued_for_onload:
            return model.Footprint(0, self.need.gpu_bytes)
        return model.Footprint(self.need.host_bytes + self.load_extra_bytes, self.need.gpu_bytes)


@dataclass(slots=True, eq=False)
class Binding:
    """The copy that a model's name stands for: `key` is None until its artifact is fetched."""

    id: model.ModelId
    key: str | None = None
    attempt: int = 0
    is_fetching: bool = False
    waiters: dict[ev.Ticket, model.ModelId] = field(default_factory=lambda: NO_WAITERS)
    failure: LoadFailure | None = None
