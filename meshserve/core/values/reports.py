"""The reports of workers and gateways, once a second: all that the controller sees of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from meshserve.core.values import (
    catalog,
    containment,
    copy_details,
    mesh_events,
    model,
    model_figures,
)

CopyState = Literal["absent", "fetching", "loading", "ready", "parked", "evicting", "failed"]
USED_S = 300.0
"""For so long a copy counts as used after a request."""

JoiningState = Literal["", "joined", "unproven", "never", "stopped"]
WorkerState = Literal["starting", "ready", "draining", "lost"]


class Counters(NamedTuple):
    """Totals since the worker's process began; `in_flight` counts the requests that run now."""

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
    """One model's copy on a worker, an absent one if it had requests or was asked for.

    `details` come if this copy was asked for.
    `reason` says why the state is failed; `requests` is a total since the worker's process began.
    `joining` says whether requests share runs, "" if the copy is not ready, and `joining_reason`
    why not, if that is known. It is a tuple and not a dataclass, because a worker has thousands of
    them.
    """

    id: model.ModelId
    state: CopyState
    reason: str = ""
    footprint: model.Footprint = model.NO_BYTES
    requests: int = 0
    pinned: bool = False
    joining: JoiningState = ""
    joining_reason: str = ""
    details: copy_details.CopyDetails | None = None


class LearnedMeasurement(NamedTuple):
    """What a load of the model's artifact has measured."""

    id: model.ModelId
    measured: model.Measured


class ModelDemand(NamedTuple):
    """The share of its worker's capacity that a model used since the last report, 0.0 to 1.0."""

    id: model.ModelId
    share: float


class WorkerUse(NamedTuple):
    """What a worker's time and memory went to since its last report.

    `cores` is the processor time of all its threads, in cores, with what its event loop waited for
    a processor. `lost` is the share of the time in
    which requests waited for models that had been evicted to make room, `queued` that in which
    loads waited for others to end. `used` is the memory of the copies that had a request in the
    last USED_S seconds.
    """

    cores: float = 0.0
    lost: float = 0.0
    queued: float = 0.0
    used: model.Footprint = model.NO_BYTES


UNUSED = WorkerUse()


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker at one moment, with what has changed since an earlier report.

    `revision` is the revision of its catalog, 0 before the first step. `number` identifies this
    report and is never 0. `copies` and `gone` are the changes since the report numbered `since`,
    or all copies if `since` is 0; with `has_more` the next report has the rest. `measured` are new
    measurements, `demands` the busiest models. `deaths` are the last ones that it has noticed of
    workers on its node, and `trials` what it has found of suspects and the catalog does not say
    yet: both come again with each report. `hung` are the copies with runs that hang in its threads,
    of which it has `run_threads`, and `hogs` those that ran when it took far more memory than its
    budget, which it does now for `excess_s` seconds. `join_stops` are its copies that are
    joined no more and of which its catalog does not say so yet. `use` is what pools scale by.
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
    # Each report names the one before it: a lost one brings all copies again.
    number: int = 1
    since: int = 0
    copies: tuple[CopyReport, ...] = ()
    gone: tuple[model.ModelId, ...] = ()
    has_more: bool = False
    measured: tuple[LearnedMeasurement, ...] = ()
    demands: tuple[ModelDemand, ...] = ()
    deaths: tuple[containment.WorkerDeath, ...] = ()
    trials: tuple[containment.TrialEnded, ...] = ()
    hung: tuple[containment.HungCopy, ...] = ()
    run_threads: int = 64
    hogs: tuple[containment.MemoryHog, ...] = ()
    excess_s: float = 0.0
    join_stops: tuple[catalog.JoiningStopped, ...] = ()
    # Those that the report before has not told, or all that it remembers if that one was lost.
    events: tuple[mesh_events.CopyEvent, ...] = ()
    use: WorkerUse = UNUSED
    figures: model_figures.FiguresBatch = model_figures.NO_FIGURES
    busy: tuple[model_figures.BusyModel, ...] = ()

    @property
    def hung_runs(self) -> int:
        """Threads that are lost to runs that hang."""
        return sum(copy.runs for copy in self.hung)


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """One gateway at one moment. `envoy_pid` is 0 while Envoy restarts; `restarts` counts that.

    `native` is "on" if requests go to workers as frames, else "off", with the reason if it was
    wanted.
    """

    node: str
    pid: int
    envoy_pid: int
    state: str
    listen: str
    restarts: int = 0
    native: str = "off"
