from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshserve.core.values import model_stats

answers = st.lists(st.tuples(st.integers(1, 100), st.floats(0, 10)), max_size=60)


@given(answers)
def test_answers_are_counted_by_request_and_by_row(history: list[tuple[int, float]]) -> None:
    stats = model_stats.ModelStats()
    for at_s, (rows, took_s) in enumerate(history):
        stats.record_answer(rows, took_s, at_s)
    assert (stats.success.count, stats.rows) == (len(history), sum(rows for rows, _ in history))
    assert stats.success.total_s == pytest.approx(sum(took_s for _, took_s in history))
    assert stats.last_ms == 1000 * max(0, len(history) - 1)


@given(answers)
@example([(rows, 0.1) for rows in range(2 * model_stats.BATCH_SIZES_MAX)])
def test_runs_are_counted_by_batch_size_for_the_first_sizes_only(
    history: list[tuple[int, float]],
) -> None:
    stats = model_stats.ModelStats()
    for rows, took_s in history:
        stats.record_run(rows, took_s)
    first_sizes = list(dict.fromkeys(rows for rows, _ in history))[: model_stats.BATCH_SIZES_MAX]
    assert list(stats.batches) == first_sizes
    assert {rows: duration.count for rows, duration in stats.batches.items()} == {
        size: sum(rows == size for rows, _ in history) for size in first_sizes
    }
    assert stats.computed.count == len(history)


def test_an_answer_is_no_run_and_a_run_no_answer() -> None:
    stats = model_stats.ModelStats()
    stats.record_answer(2, 0.5, 1.5)
    assert (stats.computed, stats.batches, stats.last_ms) == (model_stats.DurationStat(), {}, 1500)
    stats.record_run(2, 0.25)
    assert (stats.success.count, stats.rows, stats.computed.total_s) == (1, 2, 0.25)


def counted(rows: int, at_s: float) -> model_stats.ModelStats:
    stats = model_stats.ModelStats()
    stats.record_answer(rows, 0.5, at_s)
    stats.record_run(rows, 0.25)
    return stats


def test_the_counters_of_several_workers_add_up() -> None:
    total = model_stats.ModelStats()
    for stats in (counted(2, 100.0), counted(3, 50.0), counted(2, 10.0)):
        total.add(stats)
    assert (total.rows, total.last_ms) == (7, 100_000)
    assert total.success == model_stats.DurationStat(3, 1.5)
    assert total.batches == {
        2: model_stats.DurationStat(2, 0.5),
        3: model_stats.DurationStat(1, 0.25),
    }


def test_adding_changes_only_the_sum() -> None:
    stats = counted(2, 1.0)
    total = model_stats.ModelStats()
    total.add(stats)
    total.add(stats)
    assert stats == counted(2, 1.0)
