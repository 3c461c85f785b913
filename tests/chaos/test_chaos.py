"""The page of what each fault may cost has every fault; the run itself is `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import catalog

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"


@pytest.mark.parametrize("fault", sorted(catalog.FAULTS))
def test_the_page_says_what_each_fault_may_do(fault: str) -> None:
    assert f"| {fault} |" in PAGE.read_text()
