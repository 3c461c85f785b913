"""What has happened in a mesh, as its users are told: the lines of `meshserve events`."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from meshserve.core.values import model

CopyKind = Literal["loaded", "load failed", "too big", "evicted", "unloaded", "parked", "died"]
MeshKind = Literal[
    "started",
    "ready",
    "lost",
    "stopping",
    "quarantined",
    "released",
    "changed",
    "scaled",
    "spread",
    "draining",
]
EventKind = CopyKind | MeshKind

KINDS: tuple[EventKind, ...] = (*get_args(CopyKind), *get_args(MeshKind))


class CopyEvent(NamedTuple):
    """What happened to a model's copy on one worker, `ago_s` seconds before it was reported.

    `number` counts the events of the worker's process from 1. `took_s` is how long it took, 0 for
    what takes no time.
    """

    number: int
    kind: CopyKind
    id: model.ModelId
    reason: str = ""
    took_s: float = 0.0
    ago_s: float = 0.0


class MeshEvent(NamedTuple):
    """What happened at `at_s` on the controller's monotonic clock; fields that don't apply are "".

    `process` is the id of a worker or replica, or "gateway". `by` says who or what made a change,
    such as the name of an API key. `pool` is the pool of an event that is about none of its
    processes; readers see it in the reason.
    """

    at_s: float
    kind: EventKind
    reason: str = ""
    model: str = ""
    version: str = ""
    process: str = ""
    node: str = ""
    by: str = ""
    took_s: float = 0.0
    pool: str = ""
