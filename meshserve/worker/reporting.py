"""What a worker tells the controller, read from its host's state."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from meshserve.core import copies as records
from meshserve.core import lifecycle, model, report
from meshserve.worker import host, tally

STATES: dict[lifecycle.State, report.CopyState] = {
    lifecycle.State.QUEUED: "loading",
    lifecycle.State.LOADING: "loading",
    lifecycle.State.STUCK: "failed",
    lifecycle.State.READY: "ready",
    lifecycle.State.PARKING: "parked",
    lifecycle.State.PARKED: "parked",
    lifecycle.State.UNPARKING: "loading",
    lifecycle.State.DRAINING: "evicting",
    lifecycle.State.EVICTING: "evicting",
    lifecycle.State.FAILED: "failed",
    lifecycle.State.ABSENT: "absent",
}


def counters(of: host.Host, load: tally.Load) -> report.Counters:
    """Totals since the process began."""
    counts = of.residency.counts
    return report.Counters(
        requests=load.requests,
        failures=load.failures,
        hits=counts.hits,
        misses=counts.misses,
        loads=counts.loads,
        load_failures=counts.load_failures,
        evictions=counts.evictions,
        in_flight=load.in_flight,
    )


def learned(of: host.Host) -> tuple[report.Learned, ...]:
    """What was measured since the last time somebody asked."""
    news = tuple(report.Learned(id_, measured) for id_, measured in of.news.items())
    of.news.clear()
    return news


def copies(of: host.Host, ids: Iterable[model.ModelId] | None = None) -> tuple[report.CopyReport, ...]:
    """Every model that is not absent, or those of `ids`."""
    now_s = asyncio.get_running_loop().time()
    wanted = of.residency.bindings if ids is None else ids
    found = (_copy(of, id_, now_s) for id_ in wanted)
    return tuple(each for each in found if each is not None)


def _copy(of: host.Host, id_: model.ModelId, now_s: float) -> report.CopyReport | None:
    binding = of.residency.bindings.get(id_)
    if binding is None:
        return None
    if binding.key is None:
        return report.CopyReport(id_, "fetching" if binding.is_fetching else "failed", _reason(binding.trouble))
    copy = of.residency.copies[binding.key]
    state = STATES[copy.state]
    if state == "absent":
        return None
    known = of.tallies.get(id_)
    return report.CopyReport(
        id=id_,
        state=state,
        reason=_reason(copy.trouble) if state == "failed" else "",
        footprint=copy.booked,
        requests=known.success.count + known.failure.count if known else 0,
        last_used_s=now_s - copy.last_used_s,
        pinned=id_ in copy.pins,
    )


def _reason(trouble: records.Trouble | None) -> str:
    return trouble.error.message if trouble and trouble.error else ""
