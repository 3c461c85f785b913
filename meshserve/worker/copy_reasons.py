"""Tell of one model what its users ask when it is slow, fails, or is not in memory."""

from __future__ import annotations

from collections.abc import Iterator

from meshserve.core.memory import copies, version_choice
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import copy_details, model, model_stats
from meshserve.worker.models import model_host, resident_model

LONG_RUN_S = 0.01
"""A run that takes longer is worth a line: a mesh itself takes less than a millisecond."""

NO_STATS = model_stats.ModelStats()


def details(
    host: model_host.ModelHost, id_: model.ModelId, now_s: float
) -> copy_details.CopyDetails:
    """Return what the host knows of the model; nothing is loaded for it.

    It is `now_s` on the clock of the host's event loop.
    """
    binding = _binding(host, id_)
    copy = host.residency.copies[binding.key] if binding and binding.key else None
    resident = host.find_resident(copy.key) if copy else None
    stats = host.stats.get(id_, NO_STATS)
    failure = (copy or binding).failure if binding else None
    departure = copy.departure if copy else None
    signature = resident.signature if resident else None
    return copy_details.CopyDetails(
        runtime=resident.platform if resident else "",
        inputs=signature.inputs if signature else (),
        outputs=signature.outputs if signature else (),
        footprint_from=_footprint_from(copy),
        load_s=copy.load_s if copy else 0.0,
        loaded_ago_s=now_s - copy.loaded_s if copy and copy.loaded_s else None,
        departure_kind=departure.kind if departure else None,
        departure_reason=departure.reason if departure else "",
        departure_ago_s=now_s - departure.at_s if departure else None,
        error=failure.error.message if failure else "",
        failures=failure.retry.failures if failure else 0,
        retry_s=max(0.0, failure.retry.retry_at_s - now_s) if failure else 0.0,
        raised=stats.last_error,
        raised_ms=stats.last_error_ms,
        failed_requests=dict(stats.failures_by_kind or {}),
        slow=(
            *_cold(binding, copy, now_s),
            *(_slow_runs(resident, stats, now_s) if resident else ()),
        ),
    )


def _binding(host: model_host.ModelHost, id_: model.ModelId) -> copies.Binding | None:
    bindings = host.residency.bindings
    return bindings.get(id_) or bindings.get(version_choice.previous_id(id_))


def _footprint_from(copy: copies.Copy | None) -> str:
    if copy is None:
        return ""
    if copy.loaded_s:
        return "measured by its last load on this worker"
    return (
        "measured by an earlier load of the same files"
        if copy.is_measured
        else "estimated from its files: it has not been loaded"
    )


def _cold(binding: copies.Binding | None, copy: copies.Copy | None, now_s: float) -> Iterator[str]:
    """Yield in words what the requests wait for of a model that is not in memory."""
    if copy is None:
        if binding is not None and binding.is_fetching:
            yield f"cold: its files are fetched, and {len(binding.waiters)} requests wait"
    elif copy.state is CopyPhase.QUEUED:
        waits_s = now_s - copy.since_s
        yield (
            f"cold: its load has waited {waits_s:.1f} s for memory or for other loads to end, and "
            f"{len(copy.waiters)} requests wait"
        )
    elif copy.state in {CopyPhase.LOADING, CopyPhase.ONLOADING}:
        runs_s = now_s - copy.since_s
        yield f"cold: it is loaded since {runs_s:.1f} s, and {len(copy.waiters)} requests wait"
    elif copy.state in {CopyPhase.ABSENT, CopyPhase.EVICTING} and copy.failure is None:
        took = f", which took {copy.load_s:.3g} s the last time" if copy.load_s else ""
        yield f"cold: the next request loads it{took}"


def _slow_runs(
    resident: resident_model.ResidentModel, stats: model_stats.ModelStats, now_s: float
) -> Iterator[str]:
    """Yield in words what the requests wait for of a model in memory."""
    waiting, oldest_s = resident.batcher.queue(now_s)
    if waiting:
        yield f"queue: {waiting} requests wait for its runs, the first one since {oldest_s:.2g} s"
    queued_s, run_s = _mean_s(stats.queued), _mean_s(stats.computed)
    if queued_s >= LONG_RUN_S:
        yield f"queue: requests have waited {queued_s:.2g} s for a run on average"
    if run_s >= LONG_RUN_S:
        yield f"CPU: its runs have taken {run_s:.2g} s on average"
    joined = resident.batcher.joining
    if waiting and not joined.is_on:
        why = f": {joined.reason}" if joined.reason else ""
        yield f"batch: requests that wait do not share a run{why}"


def _mean_s(span: model_stats.DurationStat) -> float:
    return span.total_s / span.count if span.count else 0.0
