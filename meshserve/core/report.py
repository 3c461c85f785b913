"""What a worker tells about itself, each second or two. The controller and its readers know no more about a worker than this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from meshserve.core import model

CopyState = Literal["absent", "fetching", "loading", "ready", "parked", "evicting", "failed"]
WorkerState = Literal["starting", "ready", "draining", "lost"]


class Counters(NamedTuple):
    """Totals since the worker's process began, but for `in_flight`, the requests that it holds now."""

    requests: int = 0
    failures: int = 0
    hits: int = 0
    misses: int = 0
    loads: int = 0
    load_failures: int = 0
    evictions: int = 0
    in_flight: int = 0


NOTHING = model.Footprint()
NO_COUNTS = Counters()


class CopyReport(NamedTuple):
    """One model that is not absent. A tuple, because a worker sends tens of thousands.

    `reason` says why it failed; `requests` counts since the process began; `last_used_s` is how long ago the last one was (-1: never).
    """

    id: model.ModelId
    state: CopyState
    reason: str = ""
    footprint: model.Footprint = NOTHING
    requests: int = 0
    last_used_s: float = -1.0
    pinned: bool = False


class Learned(NamedTuple):
    """A model's bytes and what loading them taught."""

    id: model.ModelId
    measured: model.Measured


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker at one moment.

    `revision` is that of its catalog (0: it has none yet); `measured` is what it learned since its last report.
    """

    worker_id: str
    pid: int
    node: str
    state: WorkerState
    revision: int
    budget: model.Footprint = NOTHING
    booked: model.Footprint = NOTHING
    private_bytes: int = 0
    counters: Counters = NO_COUNTS
    copies: tuple[CopyReport, ...] = ()
    measured: tuple[Learned, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """One gateway at one moment. `envoy_pid` is 0 while Envoy restarts; `restarts` counts Envoy's since the gateway began."""

    node: str
    pid: int
    envoy_pid: int
    state: str
    listen: str
    restarts: int = 0
