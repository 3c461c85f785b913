"""The events that happen to one worker's memory, and the commands by which `Residency` answers.

A `key` names a copy by its content (digest, runtime, options, tensors, batching), so equal models
share one copy, and a changed artifact is another copy. A `ticket` is any hashable value that
identifies one waiting request.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from meshserve import errors
from meshserve.core.values import model, process_death

Ticket = Hashable


@dataclass(frozen=True, slots=True)
class LeaseRequested:
    """A request wants a lease on the model's copy.

    Exactly one GrantLease or RefuseLease answers it, unless RequesterLeft comes first.
    """

    ticket: Ticket
    id: model.ModelId


@dataclass(frozen=True, slots=True)
class RequesterLeft:
    """A request stopped waiting: its client disconnected or its deadline passed."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """A lease ended."""

    key: str


@dataclass(frozen=True, slots=True)
class ArtifactFetched:
    """FetchArtifact succeeded.

    `need` is the footprint and `load_s` the duration that an earlier load measured; without one,
    `need` is a hint and `load_s` 0.0. A load takes `load_extra_bytes` of host memory on top.
    """

    id: model.ModelId
    attempt: int
    key: str
    need: model.Footprint
    load_s: float = 0.0
    can_offload: bool = False
    load_timeout_s: float = 120.0
    load_extra_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """FetchArtifact failed."""

    id: model.ModelId
    attempt: int
    error: errors.MeshError


@dataclass(frozen=True, slots=True)
class CopyLoaded:
    """LoadCopy succeeded after `load_s` seconds: the copy takes `footprint`."""

    key: str
    footprint: model.Footprint
    load_s: float


@dataclass(frozen=True, slots=True)
class CopyLoadFailed:
    """LoadCopy failed, and nothing of the copy is left in memory.

    `death` is set if the model's own process died of it.
    """

    key: str
    error: errors.MeshError
    death: process_death.ProcessDeath | None = None


@dataclass(frozen=True, slots=True)
class CopyDied:
    """The process of a loaded copy has ended, in a prediction or idle; the copy must be freed.

    Requests that ran there get an error of their own.
    """

    key: str
    death: process_death.ProcessDeath


@dataclass(frozen=True, slots=True)
class CopyFreed:
    """FreeCopy is done: the copy's memory is free."""

    key: str


@dataclass(frozen=True, slots=True)
class LoadOverheadKnown:
    """The next load of the copy takes `load_extra_bytes` of host memory on top of its footprint.

    The number changes when parts of a freed copy are kept for the next load, or dropped.
    """

    key: str
    load_extra_bytes: int


@dataclass(frozen=True, slots=True)
class CopyOffloaded:
    """OffloadCopy succeeded: the copy is in host memory only."""

    key: str


@dataclass(frozen=True, slots=True)
class CopyOnloaded:
    """OnloadCopy succeeded: the copy is on the GPU."""

    key: str


@dataclass(frozen=True, slots=True)
class DeviceMoveFailed:
    """OffloadCopy or OnloadCopy failed: the copy is unusable and must be freed."""

    key: str


@dataclass(frozen=True, slots=True)
class ModelForgotten:
    """The model was withdrawn, or `is_replaced` by one with another artifact.

    The requests that wait for it are refused, or wait for the new one. With `keeps_copy` its copy
    stays as its `version_choice.previous_id`: of a replaced model until the new one is loaded, of a
    withdrawn version until another version is.
    """

    id: model.ModelId
    is_replaced: bool = False
    keeps_copy: bool = False


@dataclass(frozen=True, slots=True)
class PinSet:
    """The model's copy must stay in memory from its next load on, or may be evicted again."""

    id: model.ModelId
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class UnloadRequested:
    """The model's copy must be freed with its last lease. Pinned copies stay."""

    id: model.ModelId


@dataclass(frozen=True, slots=True)
class MemoryMeasured:
    """The private memory of the whole process; what no copy accounts for counts as overhead.

    `free_bytes` of it are gaps in the allocator's heap, which can't be returned to the system.
    """

    private_bytes: int
    free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The timer has fired: timeouts and idle times may be over."""


Event = (
    LeaseRequested
    | RequesterLeft
    | LeaseReleased
    | ArtifactFetched
    | FetchFailed
    | CopyLoaded
    | CopyLoadFailed
    | CopyDied
    | CopyFreed
    | LoadOverheadKnown
    | CopyOffloaded
    | CopyOnloaded
    | DeviceMoveFailed
    | ModelForgotten
    | PinSet
    | UnloadRequested
    | MemoryMeasured
    | TimerFired
)


@dataclass(frozen=True, slots=True)
class FetchArtifact:
    """Fetch the model's artifact; answered by ArtifactFetched or FetchFailed of this attempt."""

    id: model.ModelId
    attempt: int


@dataclass(frozen=True, slots=True)
class LoadCopy:
    """Load the copy; answered by CopyLoaded or CopyLoadFailed, however late."""

    key: str


@dataclass(frozen=True, slots=True)
class FreeCopy:
    """Free the copy's memory; answered by CopyFreed."""

    key: str


@dataclass(frozen=True, slots=True)
class OffloadCopy:
    """Move the copy from the GPU to host memory; answered by CopyOffloaded or DeviceMoveFailed."""

    key: str


@dataclass(frozen=True, slots=True)
class OnloadCopy:
    """Move the copy back to the GPU; answered by CopyOnloaded or DeviceMoveFailed."""

    key: str


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Let the request use the copy until LeaseReleased."""

    ticket: Ticket
    key: str


@dataclass(frozen=True, slots=True)
class RefuseLease:
    """Answer the request with the error."""

    ticket: Ticket
    error: errors.MeshError


Command = FetchArtifact | LoadCopy | FreeCopy | OffloadCopy | OnloadCopy | GrantLease | RefuseLease
