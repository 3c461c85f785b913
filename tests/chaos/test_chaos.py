"""Two minutes of chaos, and the page of what each fault may cost: `make chaos` runs longer."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.chaos import catalog, report, run

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
ORDER = run.Order(seed=1, time_s=120.0)


@pytest.mark.parametrize("fault", sorted(catalog.FAULTS))
def test_the_page_says_what_each_fault_may_do(fault: str) -> None:
    assert f"| {fault} |" in PAGE.read_text()


@pytest.mark.edge
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_wrong_or_fails_or_is_left_though_everything_breaks() -> None:
    # Not pytest's folder: a Unix socket's path has no room for it.
    with tempfile.TemporaryDirectory(prefix="ch-", dir="/tmp") as folder:
        verdict = run.perform(ORDER, Path(folder))
    print(report.text(verdict))  # noqa: T201 - pytest shows it where the test fails
    assert verdict.faults() == []
    assert verdict.counts.keys() == catalog.FAULTS.keys()
