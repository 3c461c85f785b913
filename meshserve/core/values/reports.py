"""The reports of workers and gateways, all that the controller knows about them; one a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from meshserve.core.values import model

CopyState = Literal["absent", "fetching", "loading", "ready", "parked", "evicting", "failed"]
WorkerState = Literal["starting", "ready", "draining", "lost"]


class Counters(NamedTuple):
    """Totals since the worker's process began; but `in_flight` is the requests of this moment."""

    requests: int = 0
    failures: int = 0
    hits: int = 0
    misses: int = 0
    loads: int = 0
    load_failures: int = 0
    evictions: int = 0
    in_flight: int = 0


NO_COUNTS = Counters()


class CopyReport(NamedTuple):
    """One model that is not absent, and its copy. A tuple, because a worker has thousands of them.

    `reason` is that of a failure; `requests` is a total since the worker's process began.
    """

    id: model.ModelId
    state: CopyState
    reason: str = ""
    footprint: model.Footprint = model.NO_BYTES
    requests: int = 0
    pinned: bool = False


class LearnedMeasurement(NamedTuple):
    """What a load of the model's artifact has measured."""

    id: model.ModelId
    measured: model.Measured


class ModelDemand(NamedTuple):
    """How busy a model kept its worker since the last report: 1.0 is all that the worker can do."""

    id: model.ModelId
    share: float


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker at one moment, with what has changed since an earlier report.

    `revision` is its catalog's, 0 before the first. `number` is this report's, never 0. `copies`
    and `gone` are the changes since the report `since`, or all copies if that is 0; with `has_more`
    the next report has the rest. `measured` are new measurements, `demands` the busiest models.
    """

    worker_id: str
    pid: int
    node: str
    state: WorkerState
    revision: int
    budget: model.Footprint = model.NO_BYTES
    booked: model.Footprint = model.NO_BYTES
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
    """One gateway at one moment. `envoy_pid` is 0 during a restart; `restarts` counts Envoy's."""

    node: str
    pid: int
    envoy_pid: int
    state: str
    listen: str
    restarts: int = 0
