from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench import results

CLAIM = results.times("speed", "req/s", 200.0, ("other", 100.0), 1.5)
TABLE = results.Table("a table", ("what", "ms"), (("a", "1"), ("b", "2")), {"c": "not there"})
CHART = results.Chart(
    "a-chart", "A chart", "ms", (results.Bar("a", 1.0, is_ours=True), results.Bar("b", 2.0))
)


@pytest.mark.parametrize(
    ("claim", "is_reached", "target"),
    [
        (results.at_most("w", 2, "ms", 2), True, "≤ 2 ms"),
        (results.at_most("w", 2.1, "ms", 2), False, "≤ 2 ms"),
        (results.at_least("w", 1_000, "", 1_000), True, "≥ 1,000"),
        (results.at_least("w", 999, "", 1_000), False, "≥ 1,000"),
        (results.exactly("w", 1, "load", 1), True, "1 load"),
        (results.exactly("w", 2, "load", 1), False, "1 load"),
        (results.times("w", "", 149, ("p", 100), 1.5), False, "≥ 1.5 ×"),
        (results.times_at_most("w", "", 149, ("p", 100), 1.5), True, "≤ 1.5 ×"),
        (results.times_at_most("w", "", 151, ("p", 100), 1.5), False, "≤ 1.5 ×"),
    ],
)
def test_a_claim_knows_whether_it_holds(claim: Any, is_reached: Any, target: Any) -> None:
    assert (claim.is_reached, claim.target) == (is_reached, target)


def test_a_peers_figure_and_the_ratio_are_kept() -> None:
    assert (CLAIM.peer, CLAIM.theirs, CLAIM.ratio, CLAIM.is_reached) == ("other", 100.0, 2.0, True)


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    measured = results.Results(
        3, {"requests": 10}, (CLAIM,), (TABLE,), (CHART,), {"deep": [{"figure": 1.0}]}
    )
    head, loaded = results.load(results.save("one", measured, results.machine(), tmp_path))
    assert loaded == measured
    assert head["benchmark"] == "one"
    assert head["machine"]["cores"] >= 1
    assert {"date", "command"} <= head.keys()


def test_what_was_not_measured_is_nothing_in_json(tmp_path: Path) -> None:
    path = results.save(
        "one", results.Results(1, {}, figures={"a": math.nan, "b": [math.nan]}), {}, tmp_path
    )
    assert json.loads(path.read_text())["figures"] == {"a": None, "b": [None]}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234.5, "1,234"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.0123, "0.012"),
        (0, "0"),
        (7.0, "7"),
        (math.nan, "-"),
        (-2.5, "-2.50"),
    ],
)
def test_figures_have_three_digits_that_count(value: Any, shown: Any) -> None:
    assert results.figure(value) == shown
