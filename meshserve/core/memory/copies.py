"""What residency keeps: a record for each copy, one for each model's name, and the account of booked bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshserve import errors
from meshserve.core.memory import copy_lifecycle
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyMove, CopyPhase
from meshserve.core.values import model

NOTHING = model.Footprint()
NO_WAITERS: dict[ev.Ticket, model.ModelId] = {}
"""The waiters of all for which nobody waits: a dictionary of its own would take as much memory as the rest of the record."""

DOUBLINGS_MAX = 64
"""From there on a back-off is at its bound, and the power would overflow some day."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What one worker may do.

    `patience_s`: how long a load that waits for leases to end lets others overtake it, before copies in use are drained for it.
    """

    budget: model.Footprint
    loads_parallel: int = 4
    waiters_max: int = 1000
    idle_unload_s: float | None = None
    back_off_s: float = 1.0
    back_off_max_s: float = 60.0
    patience_s: float = 2.0


@dataclass(slots=True)
class ResidencyCounts:
    """How often what happened since the worker began. An eviction is a copy that left for another's room or for not being used."""

    hits: int = 0
    misses: int = 0
    loads: int = 0
    load_failures: int = 0
    evictions: int = 0


@dataclass(slots=True)
class LoadFailure:
    """Why something failed, how often in a row, and when it is tried again."""

    error: errors.MeshError
    failures: int = 0
    retry_at_s: float = 0.0

    def record(self, error: errors.MeshError, now_s: float, limits: WorkerLimits) -> None:
        """Once more: the wait doubles up to its bound."""
        wait_s = min(
            limits.back_off_max_s, limits.back_off_s * 2.0 ** min(self.failures, DOUBLINGS_MAX)
        )
        self.error, self.failures, self.retry_at_s = error, self.failures + 1, now_s + wait_s

    def refusal(self, now_s: float) -> errors.MeshError:
        """The reason, with the time until the next try if there is one to wait for."""
        wait_s = self.retry_at_s - now_s
        return type(self.error)(self.error.message, retry_after_s=wait_s if wait_s > 0 else None)


def add_failure(
    failure: LoadFailure | None, error: errors.MeshError, now_s: float, limits: WorkerLimits
) -> LoadFailure:
    """The failure with one more failure."""
    failure = failure or LoadFailure(error)
    failure.record(error, now_s, limits)
    return failure


@dataclass(slots=True, eq=False)
class Copy:
    """One copy: what it needs, what it has booked, who holds it and who waits for it.

    The account writes `booked`, of it `leaving` (about to be free) and `fixed` (kept by a pin), and `is_evictable` (it may leave at any moment).
    """

    key: str
    need: model.Footprint
    load_s: float = 0.0
    can_offload: bool = False
    load_timeout_s: float = 120.0
    load_extra_bytes: int = 0
    state: CopyPhase = CopyPhase.ABSENT
    booked: model.Footprint = NOTHING
    freeing: model.Footprint = NOTHING
    pinned: model.Footprint = NOTHING
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

    def move(self, move: CopyMove, now_s: float) -> None:
        """Take the step that the table allows."""
        self.state = copy_lifecycle.after(self.state, move)
        self.since_s = now_s

    def apply_artifact(self, artifact: ev.ArtifactFetched) -> None:
        """Take over what its artifact promises; what was measured here is better."""
        self.can_offload, self.load_timeout_s = artifact.can_offload, artifact.load_timeout_s
        self.set_load_extra(artifact.load_extra_bytes)
        if not self.is_measured and self.booked == NOTHING:
            self.need, self.load_s, self.is_measured = (
                artifact.need,
                artifact.load_s,
                artifact.load_s > 0,
            )

    def set_load_extra(self, load_extra_bytes: int) -> None:
        """What its next load takes beside what it leaves; what is booked for the one under way stays."""
        if self.state is not CopyPhase.LOADING:
            self.load_extra_bytes = load_extra_bytes

    def record_load(self, footprint: model.Footprint, load_s: float) -> None:
        """A load has shown what it takes."""
        self.need, self.load_s, self.is_measured, self.failure = footprint, load_s, True, None

    @property
    def is_idle(self) -> bool:
        """Whether it may leave: in memory, unused and unpinned."""
        return self.state in copy_lifecycle.IDLE and not (self.leases or self.pins)

    @property
    def is_in_memory(self) -> bool:
        """Whether some of it is in memory, and not on its way out."""
        return self.is_queued_for_onload or self.state not in {
            CopyPhase.ABSENT,
            CopyPhase.QUEUED,
            CopyPhase.FAILED,
            CopyPhase.EVICTING,
        }

    @property
    def is_queued_for_onload(self) -> bool:
        """Whether it is queued and comes back from host memory, without its file."""
        return self.state is CopyPhase.QUEUED and self.booked != NOTHING

    @property
    def offloaded_need(self) -> model.Footprint:
        """What it takes while it is parked: everything in host memory."""
        return model.Footprint(self.need.host_bytes + self.need.gpu_bytes, 0)

    @property
    def admission_need(self) -> model.Footprint:
        """What must be free before it comes in: a shelved one's bytes are in host memory already, a load takes more than what it leaves."""
        if self.is_queued_for_onload:
            return model.Footprint(0, self.need.gpu_bytes)
        return model.Footprint(self.need.host_bytes + self.load_extra_bytes, self.need.gpu_bytes)


@dataclass(slots=True, eq=False)
class Binding:
    """What a model's name is bound to: the key of its copy, once its artifact is here."""

    id: model.ModelId
    key: str | None = None
    attempt: int = 0
    is_fetching: bool = False
    waiters: dict[ev.Ticket, model.ModelId] = field(default_factory=lambda: NO_WAITERS)
    failure: LoadFailure | None = None


class MemoryAccount:
    """Bytes: who has booked them, how many are about to be free or could be, and what the process takes beside its copies."""

    def __init__(self, budget: model.Footprint) -> None:
        self.budget = budget
        self.booked = NOTHING
        self.freeing = NOTHING
        self.draining = NOTHING
        self.pinned = NOTHING
        self.overhead_bytes = 0
        self.overhead_min_bytes = 0
        self._was_seen = False
        self._evictable_host_bytes = 0
        self._evictable_gpu_bytes = 0

    def book(self, copy: Copy, takes: model.Footprint, freeing: model.Footprint = NOTHING) -> None:
        """From now on the copy takes `takes` instead of what it had, and `leaving` of it is about to be free."""
        assert not copy.is_evictable, (
            f"{copy.key} may leave at any moment; its bytes are fixed until it is held"
        )
        self.booked = self.booked.minus(copy.booked).plus(takes)
        self.freeing = self.freeing.minus(copy.freeing).plus(freeing)
        copy.booked, copy.freeing = takes, freeing
        self.update_pinned(copy)

    def update_pinned(self, copy: Copy) -> None:
        """Count what the copy's pins keep: what stays of it, but for bytes that it holds only on its way back to the GPU.

        A parked one stays as it is, for nobody asks for it.
        """
        fixed = (
            copy.booked.minus(copy.freeing)
            if copy.pins and copy.state is not CopyPhase.DRAINING
            else NOTHING
        )
        if copy.state not in {CopyPhase.OFFLOADED, CopyPhase.OFFLOADING}:
            fixed = smaller(fixed, copy.need)
        if fixed != copy.pinned:
            self.pinned = self.pinned.minus(copy.pinned).plus(fixed)
            copy.pinned = fixed

    def mark_evictable(self, copy: Copy) -> None:
        """The copy may leave."""
        if not copy.is_evictable:
            copy.is_evictable = True
            self._evictable_host_bytes += copy.booked.host_bytes
            self._evictable_gpu_bytes += copy.booked.gpu_bytes

    def mark_held(self, copy: Copy) -> None:
        """The copy may not leave."""
        if copy.is_evictable:
            copy.is_evictable = False
            self._evictable_host_bytes -= copy.booked.host_bytes
            self._evictable_gpu_bytes -= copy.booked.gpu_bytes

    def record_process_memory(self, private_bytes: int, loading_bytes: int) -> None:
        """Take off the budget what the process has beside its copies.

        Of `loading_bytes`, booked for loads under way, nobody knows how much is taken yet: what was known before holds as far as it can.
        """
        least = max(0, private_bytes - self.booked.host_bytes)
        most = least + loading_bytes
        self.overhead_bytes = min(most, max(least, self.overhead_bytes)) if self._was_seen else most
        self.overhead_min_bytes = (
            min(self.overhead_min_bytes, self.overhead_bytes)
            if self._was_seen
            else self.overhead_bytes
        )
        self._was_seen = True

    @property
    def evictable(self) -> model.Footprint:
        """What all that may leave take together."""
        return model.Footprint(self._evictable_host_bytes, self._evictable_gpu_bytes)

    @property
    def free(self) -> model.Footprint:
        """What is free now; negative while too much is booked."""
        budget, booked = self.budget, self.booked
        return model.Footprint(
            budget.host_bytes - booked.host_bytes - self.overhead_bytes,
            budget.gpu_bytes - booked.gpu_bytes,
        )

    @property
    def free_soon(self) -> model.Footprint:
        """What is free once those that are leaving have left."""
        return self.free.plus(self.freeing)

    def free_at_most(self, copy: Copy, overhead_bytes: int) -> model.Footprint:
        """What could ever be free for the copy: the budget without the process itself and without what is pinned."""
        return (
            self.budget.minus(self.pinned)
            .plus(copy.pinned)
            .minus(model.Footprint(overhead_bytes, 0))
        )


def smaller(one: model.Footprint, other: model.Footprint) -> model.Footprint:
    """The smaller of the two on each device."""
    return model.Footprint(
        min(one.host_bytes, other.host_bytes), min(one.gpu_bytes, other.gpu_bytes)
    )
