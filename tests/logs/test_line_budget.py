from __future__ import annotations

from meshserve.logs import line_budget

BURST = int(line_budget.BURST_LINES)


def test_lines_beyond_a_burst_are_dropped_and_counted() -> None:
    budget = line_budget.LineBudget()
    assert [budget.take("m", 0.0) for _ in range(BURST + 3)] == [0] * BURST + [-1] * 3
    assert budget.take("other", 0.0) == 0
    assert [budget.take("m", 0.02) for _ in range(3)] == [3, 0, -1]


def test_a_clock_that_is_set_back_drops_nothing_of_a_quiet_source() -> None:
    budget = line_budget.LineBudget()
    assert [budget.take("m", now_s) for now_s in (1000.0, 0.0, 1000.0)] == [0, 0, 0]


def test_only_so_many_sources_are_kept() -> None:
    budget = line_budget.LineBudget()
    for number in range(3 * line_budget.SOURCES_MAX):
        budget.take(str(number), number * 1.0)
    assert len(budget._sources) <= line_budget.SOURCES_MAX
