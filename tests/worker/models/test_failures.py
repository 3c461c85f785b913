from __future__ import annotations

import logging

import pytest

from meshserve import errors
from meshserve.core.values import model_stats
from meshserve.logs import log_lines, run_context
from meshserve.worker.models import failures

LABELS = run_context.RunLabels("iris", "3", "abc")


def raised(text: str) -> errors.ModelRaised:
    error = errors.ModelRaised(f"ValueError: {text}")
    error.__cause__ = ValueError(text)
    return error


def test_what_a_model_raises_is_told_once_and_then_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stats = model_stats.ModelStats()
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            failures.count(stats, LABELS, raised(f"bad {number}"), 0.0)
        stats.quiet_until_s = 0.0
        failures.count(stats, LABELS, raised("again"), 0.0)
    first, second = caplog.records
    assert (first.message, first.exc_info and first.exc_info[0]) == (
        "a request failed: ValueError: bad 0",
        ValueError,
    )
    assert log_lines.labels_of(first) == LABELS
    assert second.message.endswith("(4 more failed so since the last such line)")
    assert stats.failures_by_kind == {"ModelRaised": 6}
    assert (stats.last_error, stats.failure.count) == ("ValueError: again", 6)
    assert stats.last_error_ms > 0


def test_mistakes_of_callers_are_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    stats = model_stats.ModelStats()
    failures.count(stats, LABELS, errors.InvalidRequest("no input x"), 0.0)
    assert (caplog.records, stats.last_error) == ([], "")
    assert stats.failures_by_kind == {"InvalidRequest": 1}


def test_a_long_reason_is_cut() -> None:
    stats = model_stats.ModelStats()
    failures.count(stats, LABELS, raised("x" * 10_000), 0.0)
    assert len(stats.last_error) == failures.REASON_CHARS_MAX
