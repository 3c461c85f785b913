from __future__ import annotations

from typing import Any

import pytest

from bench import routing_tables as tables
from bench import runs, systems


def figures(rate: Any, cpu_us: float = 100.0, p50_ms: float = 0.3, p99_ms: float = 1.0) -> Any:
    run = runs.Run(rate, p50_ms, p99_ms, 2.0, cpu_us)
    return runs.Figures({tables.ONE: run, tables.MANY: run, tables.BIG: run}, 50.0, 3.0)


def middle(ours: Any, **peers: Any) -> Any:
    names = {"bare": systems.BARE, "mlserver": systems.MLSERVER, "ray": systems.RAY_DEFAULT}
    return {systems.OURS: ours, **{names[name]: figures(rate) for name, rate in peers.items()}}


def reached(claims: Any) -> Any:
    return [claim.is_reached for claim in claims]


def test_every_target_of_a_peer_that_is_there_is_held() -> None:
    claims = list(tables.targets(middle(figures(10_000), mlserver=1_400, ray=300)))
    assert reached(claims) == [True, True, False, True, True]
    assert [claim.peer for claim in claims[1:3]] == [systems.MLSERVER, systems.RAY_DEFAULT]


def test_targets_of_our_own_are_held() -> None:
    claims = list(tables.targets(middle(figures(1, cpu_us=111.0, p50_ms=0.41, p99_ms=1.3))))
    assert reached(claims) == [False] * 3


@pytest.mark.parametrize(
    ("rate", "cpu_us", "holds"), [(2_000, 90.0, True), (500, 90.0, False), (2_000, 300.0, False)]
)
def test_a_floor_is_beside_the_bare_server(rate: Any, cpu_us: Any, holds: Any) -> None:
    assert all(reached(tables.floors(middle(figures(rate, cpu_us), bare=1_000)))) is holds


def test_a_peer_that_is_missing_is_in_the_table_with_its_reason() -> None:
    measured = tables.summarise([middle(figures(10.0), bare=5.0)], {}, {"PyTriton 0.7": "no wheel"})
    assert measured.tables[0].missing == {"PyTriton 0.7": "no wheel"}
    assert [row[0] for row in measured.tables[0].rows] == [systems.OURS, systems.BARE]
    assert measured.tables[0].rows[0][-2:] == ("2", "1")


def test_without_ours_there_are_tables_and_no_claims() -> None:
    measured = tables.summarise([{systems.BARE: figures(5.0)}], {}, {})
    assert (measured.claims, len(measured.tables)) == ((), 4)


def test_ours_is_marked_in_the_charts() -> None:
    (speed, *_) = tables.charts(middle(figures(10.0), bare=5.0))
    assert [(bar.value, bar.is_ours) for bar in speed.bars] == [(10.0, True), (5.0, False)]
