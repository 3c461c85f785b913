from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import model_stats

answers = st.lists(st.tuples(st.integers(1, 100), st.floats(0, 10)), max_size=60)


@given(answers)
def test_answers_are_counted_by_request_and_by_row(history):
    counted = model_stats.ModelStats()
    for at_s, (rows, took_s) in enumerate(history):
        counted.answered(rows, took_s, at_s)
    assert (counted.success.count, counted.rows) == (len(history), sum(rows for rows, _ in history))
    assert counted.success.total_s == pytest.approx(sum(took_s for _, took_s in history))
    assert counted.last_ms == 1000 * max(0, len(history) - 1)


@given(answers)
def test_runs_are_told_apart_by_batch_size_up_to_a_number_of_sizes(history):
    counted = model_stats.ModelStats()
    for rows, took_s in history:
        counted.ran(rows, took_s)
    first_sizes = list(dict.fromkeys(rows for rows, _ in history))[: model_stats.BATCH_SIZES_MAX]
    assert list(counted.batches) == first_sizes
    assert {rows: span.count for rows, span in counted.batches.items()} == {
        size: sum(rows == size for rows, _ in history) for size in first_sizes
    }
    assert counted.computed.count == len(history)


def test_an_answer_is_no_run_and_a_run_no_answer():
    counted = model_stats.ModelStats()
    counted.answered(2, 0.5, 1.5)
    assert (counted.computed, counted.batches, counted.last_ms) == (
        model_stats.DurationStat(),
        {},
        1500,
    )
    counted.ran(2, 0.25)
    assert (counted.success.count, counted.rows, counted.computed.total_s) == (1, 2, 0.25)


def test_each_model_has_numbers_of_its_own():
    one, other = model_stats.ModelStats(), model_stats.ModelStats()
    one.ran(1, 0.1)
    assert other == model_stats.ModelStats()
