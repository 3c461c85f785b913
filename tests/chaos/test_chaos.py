"""Two minutes of chaos with a fixed seed: no wrong answer, no unexcused failure, no leak."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.chaos import catalog, report, run

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
ORDER = run.Order(seed=0, time_s=float(os.environ.get("MESHSERVE_CHAOS_S", "100")))


@pytest.mark.edge
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_wrong_after_chaos() -> None:
    # Not pytest's folder: a Unix socket's path has no room for it.
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as folder:
        verdict = run.perform(ORDER, Path(folder))
    text = report.text(verdict)
    print(text)  # noqa: T201 - pytest -s shows the table
    assert verdict.judge.answered > ORDER.time_s * ORDER.per_s / 2, text
    assert verdict.judge.wrong == [], text
    assert verdict.judge.failures == [], text
    assert verdict.leaks == [], text


@pytest.mark.parametrize("fault", sorted(catalog.FAULTS))
def test_the_page_says_what_each_fault_may_do(fault: str) -> None:
    assert f"| {fault} |" in PAGE.read_text()
