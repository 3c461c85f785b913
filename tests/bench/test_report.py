from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import report, results
from tests.bench.test_results import CHART, CLAIM, TABLE

PAGE = f"""before
{report.RESULTS}
old
<!-- end -->
between
{report.GOALS}
old
<!-- end -->
after
"""
MACHINE = {"cpu": "A CPU", "cores": 2, "memory_gib": 8.0, "python": "3.11"}


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    return tmp_path / "results"


def save(folder: Any, *names: Any) -> None:
    for name in names:
        measured = results.Results(3, {}, (CLAIM,), (TABLE,), (CHART,))
        results.save(name, measured, MACHINE, folder)


def test_only_the_text_between_marks_is_written(folder: Any) -> None:
    save(folder, "routing")
    text = report.with_results(PAGE, folder)
    assert text.startswith(f"before\n{report.RESULTS}\n### Routing")
    assert "<!-- end -->\nbetween\n" in text
    assert text.endswith("<!-- end -->\nafter\n")
    assert "\nold\n" not in text


def test_writing_twice_changes_nothing(folder: Any) -> None:
    save(folder, "routing", "cold")
    once = report.with_results(PAGE, folder)
    assert report.with_results(once, folder) == once


def test_a_section_has_results_where_when_and_how(folder: Any) -> None:
    save(folder, "routing")
    (section,) = report.sections(folder)
    assert "2 cores of A CPU, 8.0 GiB, Python 3.11" in section
    assert "medians of 3 rounds" in section
    assert "| speed | 200 req/s | other | 100 req/s | 2.00 × |" in section
    assert "![A chart](results/a-chart.svg)" in section
    assert "Not measured: c (not there)." in section


def test_goals_are_a_table_of_their_own(folder: Any) -> None:
    save(folder, "llm_overhead")
    assert "| LLM overhead | speed | 2.00 × other | ≥ 1.5 × | reached |" in report.goals(folder)


def test_sections_come_in_a_readers_order(folder: Any) -> None:
    save(folder, "zebra", "scale", "cold", "routing")
    assert [path.stem for path in report.paths(folder)] == ["routing", "cold", "scale", "zebra"]


def test_charts_lie_beside_the_results(folder: Any) -> None:
    save(folder, "routing")
    assert list(report.drawn(folder)) == [folder / "a-chart.svg"]


def test_bars_in_a_cell_do_not_end_it() -> None:
    assert report.markdown(("a", "b"), [("x|y", "1\n2")]).splitlines()[2] == "| x\\|y | 1 2 |"


def test_the_page_has_the_results_of_today() -> None:
    text = report.PAGE.read_text()
    assert report.with_results(text, results.FOLDER) == text
    assert all(path.read_text() == drawn for path, drawn in report.drawn(results.FOLDER).items())
