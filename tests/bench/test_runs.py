from __future__ import annotations

import math
from typing import Any

from bench import runs


def figures(rate: Any, **more: Any) -> Any:
    return runs.Figures({"one": runs.Run(rate, 1.0, 2.0, cpu_us=10 * rate)}, **more)


def test_medians_are_of_each_figure_and_of_the_rounds_that_had_it() -> None:
    rounds = [
        {"a": figures(1.0, memory_mib=5.0), "b": figures(7.0)},
        {"a": figures(3.0, memory_mib=1.0)},
        {"a": figures(2.0, memory_mib=3.0)},
    ]
    middle = runs.medians(rounds)
    assert list(middle) == ["a", "b"]
    assert (
        middle["a"].runs["one"].requests_per_s,
        middle["a"].runs["one"].cpu_us,
        middle["a"].memory_mib,
    ) == (2.0, 20.0, 3.0)
    assert middle["b"].runs["one"].requests_per_s == 7.0


def test_what_was_not_measured_stays_so() -> None:
    assert math.isnan(runs.medians([{"a": figures(1.0)}])["a"].runs["one"].p999_ms)


def test_rounds_become_plain_values() -> None:
    plain: Any = runs.as_json([{"a": figures(1.0)}])
    assert plain[0]["a"]["runs"]["one"]["requests_per_s"] == 1.0
