"""What a worker tells the controller, read from its host's state."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from meshserve.core.memory import copies as records
from meshserve.core.memory import copy_lifecycle
from meshserve.core.values import model, reports
from meshserve.worker.http import worker_stats
from meshserve.worker.models import model_host

PAGE_COPIES = 500

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


def counters(of: model_host.ModelHost, load: worker_stats.WorkerLoad) -> reports.Counters:
    """Totals since the process began."""
    counts = of.residency.counts
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


def learned(of: model_host.ModelHost) -> tuple[reports.LearnedMeasurement, ...]:
    """What was measured since the last time somebody asked."""
    news = tuple(reports.LearnedMeasurement(id_, measured) for id_, measured in of.news.items())
    of.news.clear()
    return news


def copies(
    of: model_host.ModelHost, ids: Iterable[model.ModelId]
) -> tuple[reports.CopyReport, ...]:
    """Those of these models that are not absent."""
    found = (_copy(of, id_) for id_ in ids)
    return tuple(each for each in found if each is not None)


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A part of what there is to say about copies, as WorkerReport has it."""

    number: int
    since: int
    copies: tuple[reports.CopyReport, ...]
    gone: tuple[model.ModelId, ...]
    has_more: bool


class ReportPages:
    """What changes of a host's copies, told in parts that hold up requests for a millisecond or two."""

    def __init__(self, of: model_host.ModelHost) -> None:
        self._of = of
        self._number = 0
        self._due: dict[model.ModelId, None] = {}

    def next(self, since: int) -> ReportPage:
        """What comes after the page `since`; from the beginning, where that was not the last one."""
        residency = self._of.residency
        base = since if since == self._number else 0
        self._due = (
            self._due | dict.fromkeys(residency.changed)
            if base
            else dict.fromkeys(residency.bindings)
        )
        residency.changed.clear()
        ids = list(itertools.islice(self._due, PAGE_COPIES))
        for id_ in ids:
            del self._due[id_]
        self._number += 1
        found = copies(self._of, ids)
        gone = set(ids).difference(copy.id for copy in found) if base else ()
        return ReportPage(self._number, base, found, tuple(gone), bool(self._due))


def _copy(of: model_host.ModelHost, id_: model.ModelId) -> reports.CopyReport | None:
    binding = of.residency.bindings.get(id_)
    if binding is None:
        return None
    if binding.key is None:
        return reports.CopyReport(
            id_, "fetching" if binding.is_fetching else "failed", _reason(binding.failure)
        )
    copy = of.residency.copies[binding.key]
    state = STATES[copy.state]
    if state == "absent":
        return None
    known = of.tallies.get(id_)
    return reports.CopyReport(
        id=id_,
        state=state,
        reason=_reason(copy.failure) if state == "failed" else "",
        footprint=copy.booked,
        requests=known.success.count + known.failure.count if known else 0,
        pinned=id_ in copy.pins,
    )


def _reason(failure: records.LoadFailure | None) -> str:
    return failure.error.message if failure and failure.error else ""
