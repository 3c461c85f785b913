"""Adds up what several workers counted for one model."""

from __future__ import annotations

from meshserve.core.values import model_stats


def add(whole: model_stats.ModelStats, part: model_stats.ModelStats) -> None:
    """Add `part` to `whole`."""
    for one, other in (
        (whole.success, part.success),
        (whole.failure, part.failure),
        (whole.queued, part.queued),
        (whole.computed, part.computed),
    ):
        _add_span(one, other)
    whole.rows += part.rows
    whole.last_ms = max(whole.last_ms, part.last_ms)
    for size, span in part.batches.items():
        _add_span(whole.batches.setdefault(size, model_stats.DurationStat()), span)


def _add_span(whole: model_stats.DurationStat, part: model_stats.DurationStat) -> None:
    whole.count += part.count
    whole.total_s += part.total_s
