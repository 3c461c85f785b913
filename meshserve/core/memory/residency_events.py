"""What can happen to one worker's memory, and what its decisions ask for.

A `key` names a copy by what it is made of (bytes, runtime, options): two models with equal keys share one copy.
A `ticket` is any hashable that names one waiting request.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from meshserve import errors
from meshserve.core.values import model

Ticket = Hashable


@dataclass(frozen=True, slots=True)
class LeaseRequested:
    """A request wants a lease on the model's copy. It is answered by exactly one Grant or Refuse, unless it leaves first."""

    ticket: Ticket
    id: model.ModelId


@dataclass(frozen=True, slots=True)
class RequesterLeft:
    """A waiting request went away."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """A lease ended."""

    key: str


@dataclass(frozen=True, slots=True)
class ArtifactFetched:
    """The artifact of a model is here. `need` is its measured footprint if it is known, else a hint.

    `load_extra_bytes` is what a load takes beside that while it goes on.
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
    """The artifact of a model could not be had."""

    id: model.ModelId
    attempt: int
    error: errors.MeshError


@dataclass(frozen=True, slots=True)
class CopyLoaded:
    """A copy is in memory and takes `footprint`."""

    key: str
    footprint: model.Footprint
    load_s: float


@dataclass(frozen=True, slots=True)
class CopyLoadFailed:
    """A load ended without a copy; nothing of it is left in memory."""

    key: str
    error: errors.MeshError


@dataclass(frozen=True, slots=True)
class CopyFreed:
    """A copy's memory is free again."""

    key: str


@dataclass(frozen=True, slots=True)
class LoadOverheadKnown:
    """From now on a load of the copy takes so many bytes beside what it leaves: something was kept of it that eases it, or is no more."""

    key: str
    load_extra_bytes: int


@dataclass(frozen=True, slots=True)
class CopyOffloaded:
    """A copy has left the GPU and is in host memory."""

    key: str


@dataclass(frozen=True, slots=True)
class CopyOnloaded:
    """A copy is back on the GPU."""

    key: str


@dataclass(frozen=True, slots=True)
class DeviceMoveFailed:
    """A copy could not be moved between the devices; it is of no use any more."""

    key: str


@dataclass(frozen=True, slots=True)
class ModelForgotten:
    """The model is withdrawn, or declared anew with another artifact (`is_replaced`: whoever waits goes on waiting, for the new one)."""

    id: model.ModelId
    is_replaced: bool = False


@dataclass(frozen=True, slots=True)
class PinSet:
    """The model must stay once it is there, or need not any more."""

    id: model.ModelId
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class UnloadRequested:
    """The model's copy shall go as soon as nobody uses it."""

    id: model.ModelId


@dataclass(frozen=True, slots=True)
class MemoryMeasured:
    """The whole process has so much private memory; what no copy accounts for is taken off the budget.

    `free_bytes`: what the allocator holds free between what is in use, and can't give back.
    """

    private_bytes: int
    free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TimerFired:
    """Time went by."""


Event = (
    LeaseRequested | RequesterLeft | LeaseReleased | ArtifactFetched | FetchFailed | CopyLoaded | CopyLoadFailed | CopyFreed | LoadOverheadKnown | CopyOffloaded | CopyOnloaded | DeviceMoveFailed | ModelForgotten
    | PinSet | UnloadRequested | MemoryMeasured | TimerFired
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FetchArtifact:
    """Bring the model's artifact here and say what it is: answered by Fetched or FetchFailed with the same attempt."""

    id: model.ModelId
    attempt: int


@dataclass(frozen=True, slots=True)
class LoadCopy:
    """Load the copy: answered by Loaded or LoadEnded, however late."""

    key: str


@dataclass(frozen=True, slots=True)
class FreeCopy:
    """Give the copy's memory back: answered by Freed."""

    key: str


@dataclass(frozen=True, slots=True)
class OffloadCopy:
    """Move the copy off the GPU: answered by Parked or MoveFailed."""

    key: str


@dataclass(frozen=True, slots=True)
class OnloadCopy:
    """Move the copy back to the GPU: answered by Unparked or MoveFailed."""

    key: str


@dataclass(frozen=True, slots=True)
class GrantLease:
    """The request has a lease on the copy, until Released."""

    ticket: Ticket
    key: str


@dataclass(frozen=True, slots=True)
class RefuseLease:
    """The request gets this error."""

    ticket: Ticket
    error: errors.MeshError


Command = FetchArtifact | LoadCopy | FreeCopy | OffloadCopy | OnloadCopy | GrantLease | RefuseLease
