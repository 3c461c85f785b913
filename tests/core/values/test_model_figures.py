from __future__ import annotations

import itertools

from meshserve.core.values import model_figures

BOUNDS = model_figures.LATENCY_BOUNDS_S


def test_a_time_that_equals_a_bound_is_below_it() -> None:
    figures = model_figures.ModelFigures()
    for took_s in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], BOUNDS[-1] * 2):
        figures.record_answer(took_s, 3, 5)
    assert figures.latency_counts == [2, 1, *[0] * (len(BOUNDS) - 3), 1, 1]
    assert (figures.requests, figures.request_bytes, figures.answer_bytes) == (5, 15, 25)


def test_buckets_are_at_most_five_times_as_wide_as_their_bound() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert all(upper <= 5 * lower for lower, upper in itertools.pairwise(BOUNDS))


def test_totals_are_added_and_the_added_stay() -> None:
    one, other = model_figures.ModelFigures(), model_figures.ModelFigures()
    other.record_answer(0.003, 10, 20)
    other.record_failure(424)
    other.record_cold_call(2.0)
    other.joined_rows, other.loads, other.load_s, other.evictions = 4, 1, 0.5, 2
    for _ in range(2):
        one.add(other)
    assert (one.requests, one.latency_s, one.failures) == (2, 0.006, {424: 2})
    assert (one.cold_calls, one.cold_s, one.joined_rows) == (2, 4.0, 8)
    assert (one.loads, one.load_s, one.evictions) == (2, 1.0, 4)
    assert (other.requests, other.failures) == (1, {424: 1})
