"""What a worker tells about itself, each second. The controller and its readers know no more about a worker than this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from meshserve.core.values import model

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

    `reason` says why it failed; `requests` counts since the process began.
    """

    id: model.ModelId
    state: CopyState
    reason: str = ""
    footprint: model.Footprint = NOTHING
    requests: int = 0
    pinned: bool = False


class LearnedMeasurement(NamedTuple):
    """A model's bytes and what loading them taught."""

    id: model.ModelId
    measured: model.Measured


class ModelDemand(NamedTuple):
    """How busy one model kept a worker since its last report: 1.0 is all that the worker can do for it."""

    id: model.ModelId
    share: float


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker at one moment.

    `revision` is that of its catalog (0: it has none yet); `measured` is what it learned since its last report.

    `copies` and `gone` are what changed since its report `since`, and all there is where that is 0; with `has_more` the next report has
    the rest of it. This report's own `number` is never 0. `demands` are the models that kept it busiest.
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
    number: int = 1
    since: int = 0
    copies: tuple[CopyReport, ...] = ()
    gone: tuple[model.ModelId, ...] = ()
    has_more: bool = False
    measured: tuple[LearnedMeasurement, ...] = ()
    demands: tuple[ModelDemand, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """One gateway at one moment. `envoy_pid` is 0 while Envoy restarts; `restarts` counts Envoy's since the gateway began."""

    node: str
    pid: int
    envoy_pid: int
    state: str
    listen: str
    restarts: int = 0
