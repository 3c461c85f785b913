"""What a worker reports to the controller, read from its host."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from meshserve.core.memory import copies as records
from meshserve.core.memory import copy_lifecycle, version_choice
from meshserve.core.values import mesh_events, model, model_figures, reports
from meshserve.worker import copy_reasons
from meshserve.worker.http import worker_app
from meshserve.worker.models import joining, model_host

PAGE_COPIES = 500
"""Copies in one report. All 4,000 of a full worker held its event loop up for 14 to 67 ms."""

REPLACED = " (requests go to the model that it was to replace)"

# Clients of `/mesh/v1` see these words; the phases have names of their own.
STATES: dict[copy_lifecycle.CopyPhase, reports.CopyState] = {
    copy_lifecycle.CopyPhase.QUEUED: "loading",
    copy_lifecycle.CopyPhase.LOADING: "loading",
    copy_lifecycle.CopyPhase.STUCK: "failed",
    copy_lifecycle.CopyPhase.READY: "ready",
    copy_lifecycle.CopyPhase.OFFLOADING: "parked",
    copy_lifecycle.CopyPhase.OFFLOADED: "parked",
    copy_lifecycle.CopyPhase.ONLOADING: "loading",
    copy_lifecycle.CopyPhase.DRAINING: "evicting",
    copy_lifecycle.CopyPhase.EVICTING: "evicting",
    copy_lifecycle.CopyPhase.FAILED: "failed",
    copy_lifecycle.CopyPhase.ABSENT: "absent",
}

JOINING: dict[joining.JoinState, reports.JoiningState] = {
    joining.JoinState.NEVER: "never",
    joining.JoinState.UNPROVEN: "unproven",
    joining.JoinState.PROVING: "unproven",
    joining.JoinState.JOINED: "joined",
    joining.JoinState.STOPPED: "stopped",
}


def counters(host: model_host.ModelHost, load: worker_app.WorkerLoad) -> reports.Counters:
    """Return totals since the process began."""
    counts = host.residency.counts
    return reports.Counters(
        requests=load.requests,
        failures=load.failures,
        hits=counts.hits,
        misses=counts.misses,
        loads=counts.loads,
        load_failures=counts.load_failures,
        evictions=counts.evictions,
        in_flight=load.in_flight,
    )


def take_measurements(host: model_host.ModelHost) -> tuple[reports.LearnedMeasurement, ...]:
    """Return the footprints measured since the last call."""
    measured = host.take_measured()
    return tuple(itertools.starmap(reports.LearnedMeasurement, measured.items()))


def copies(
    host: model_host.ModelHost, ids: Iterable[model.ModelId], now_s: float | None = None
) -> tuple[reports.CopyReport, ...]:
    """Return a report of each of these models that has a copy, or had requests.

    With a time, now on the clock of the host's event loop, each has its details.
    """
    every = (_copy(host, id_) for id_ in ids)
    present = tuple(report for report in every if report is not None)
    if now_s is None:
        return present
    return tuple(
        report._replace(details=copy_reasons.details(host, report.id, now_s)) for report in present
    )


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A part of the changes of a worker's copies; the fields are WorkerReport's."""

    number: int
    since: int
    copies: tuple[reports.CopyReport, ...]
    gone: tuple[model.ModelId, ...]
    has_more: bool


class ReportPages:
    """Splits the changes of a host's copies into pages, each naming the one before."""

    def __init__(self, host: model_host.ModelHost) -> None:
        self._host = host
        self._number = 0
        # A dictionary, because pages need an order, which a set lacks.
        self._due: dict[model.ModelId, None] = {}

    def next(self, since: int) -> ReportPage:
        """Return the page after `since`; if that was not the last, the first of all copies."""
        changed = self._host.take_changed()
        # A page that got lost can't be told from one that came late: all copies are sent again.
        base = since if since == self._number else 0
        if base:
            self._due |= dict.fromkeys(changed)
        else:
            ids_now = map(version_choice.public_id, self._host.residency.bindings)
            self._due = dict.fromkeys(ids_now)
        ids = list(itertools.islice(self._due, PAGE_COPIES))
        for id_ in ids:
            del self._due[id_]
        self._number += 1
        page = copies(self._host, ids)
        # A first page takes the place of all that the controller knows, so nothing is gone of it.
        gone = set(ids).difference(copy.id for copy in page) if base else ()
        return ReportPage(self._number, base, page, tuple(gone), bool(self._due))


class ReportEvents:
    """Chooses the events for each report of a host."""

    def __init__(self, host: model_host.ModelHost) -> None:
        self._host = host
        self._last_told = 0

    def next(self, since: int, now_s: float) -> tuple[mesh_events.CopyEvent, ...]:
        """Return what happened after the last report if that was `since`, else all that is known.

        The receiver drops what it knows by its numbers: all comes again to a new controller.
        """
        latest = self._host.residency.history.after(self._last_told if since else 0, now_s)
        if latest:
            self._last_told = latest[-1].number
        return latest


class ReportFigures:
    """Reads the figures of a host's models for each report."""

    def __init__(self, host: model_host.ModelHost) -> None:
        self._host = host

    def next(self, *, has_arrived: bool) -> model_figures.FiguresBatch:
        """Return what was counted since the last batch, or that again unless it `has_arrived`."""
        host = self._host
        host.traffic.record_copies(host.residency.history.take_figures())
        for id_, figures in host.traffic.fresh.items():
            stats = host.stats.get(id_)
            if stats is not None:
                figures.joined_rows += stats.joined_rows
                stats.joined_rows = 0
        return host.traffic.next_batch(has_arrived=has_arrived)

    def busy(
        self, requests: Iterable[worker_app.InferenceRequest]
    ) -> tuple[model_figures.BusyModel, ...]:
        """Return the models of these requests that wait for their answers."""
        calls = (request.call for request in requests)
        in_flight = Counter(call.resolved for call in calls if call and call.resolved)
        queued = self._host.traffic.cold + self._host.watch.waiting()
        return tuple(
            model_figures.BusyModel(id_, count, min(count, queued[id_]))
            for id_, count in in_flight.items()
        )


def _copy(host: model_host.ModelHost, id_: model.ModelId) -> reports.CopyReport | None:
    bindings = host.residency.bindings
    previous = bindings.get(version_choice.previous_id(id_))
    binding = bindings.get(id_) or previous
    if binding is None:
        return None
    if binding.key is None:
        state: reports.CopyState = "fetching" if binding.is_fetching else "failed"
        return reports.CopyReport(id_, state, _reason(binding.failure, previous))
    copy = host.residency.copies[binding.key]
    state = STATES[copy.state]
    stats = host.stats.get(id_)
    if state == "absent" and stats is None:
        return None
    resident = host.find_resident(binding.key)
    joined = resident.batcher.joining if resident else None
    return reports.CopyReport(
        id=id_,
        state=state,
        reason=_reason(copy.failure, previous) if state == "failed" else "",
        footprint=copy.booked,
        requests=stats.success.count + stats.failure.count if stats else 0,
        pinned=id_ in copy.pins,
        joining=JOINING[joined.state] if joined else "",
        joining_reason=joined.reason if joined else "",
    )


def _reason(failure: records.LoadFailure | None, previous: records.Binding | None) -> str:
    if failure is None:
        return ""
    return f"{failure.error.message}{REPLACED}" if previous else failure.error.message
