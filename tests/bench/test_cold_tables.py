from __future__ import annotations

from typing import Any

import pytest

from bench import cold_tables as tables
from bench import thrash, traffic

IN_PROCESS = {tables.TINY: 0.5}


def summarise(
    p50_ms: float = 2.0, loads: int = 1, fault: str = "", *, is_quick: bool = False
) -> Any:
    took_ms = {(place, tables.TINY): [p50_ms] * 10 for place in (tables.CACHED, tables.DISK)}
    rushed = [tables.Stampede(tables.TINY, 500, loads, 0, [1.0, 2.0])]
    thrashed = thrash.Thrashed(
        400, 100, 50.0, 30, [traffic.Asked(number % 7, 1.0, fault) for number in range(30)]
    )
    return tables.summarise(took_ms, IN_PROCESS, rushed, thrashed, is_quick=is_quick)


def missed(result: Any) -> Any:
    return [claim.what for claim in result.claims if not claim.is_reached]


@pytest.mark.parametrize(
    ("changes", "count"),
    [({}, 0), ({"p50_ms": 4.0}, 2), ({"p50_ms": 20.0}, 4), ({"loads": 2}, 1), ({"fault": "x"}, 1)],
)
def test_every_target_can_be_missed(changes: Any, count: Any) -> None:
    assert len(missed(summarise(**changes))) == count


@pytest.mark.parametrize(("p50_ms", "count"), [(5.9, 0), (6.1, 1)])
def test_the_quick_floor_is_beside_the_load_in_process(p50_ms: Any, count: Any) -> None:
    assert len(missed(summarise(p50_ms, is_quick=True))) == count


def test_attached_models_have_their_place_in_the_table() -> None:
    assert tables.ATTACHED in summarise().tables[0].missing
