from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.cli import deltas
from tests.cli import fake_mesh

COUNTS = st.fixed_dictionaries(dict.fromkeys(deltas.COUNTERS, st.integers(0, 10**6)))


def test_traffic_is_the_growth_of_the_counters() -> None:
    before, after = (
        fake_mesh.worker("a"),
        fake_mesh.worker("a", requests=120_500, hits=120_300, loads=104),
    )
    traffic = deltas.traffic(before, after, 2.0)
    assert (traffic.requests, traffic.hits, traffic.misses, traffic.loads) == (500, 400, 0, 4)
    assert (traffic.requests_per_s, traffic.loads_per_s, traffic.failures_per_s) == (
        250.0,
        2.0,
        0.0,
    )


def test_a_new_worker_has_no_traffic_yet() -> None:
    assert deltas.traffic(None, fake_mesh.worker("a"), 1.0) == deltas.Traffic(1.0)


def test_a_restarted_worker_counts_from_zero() -> None:
    assert (
        deltas.traffic(fake_mesh.worker("a"), fake_mesh.worker("a", requests=30), 1.0).requests
        == 30
    )


@given(COUNTS, COUNTS, st.floats(0.1, 100))
def test_traffic_is_never_negative(before: Any, after: Any, interval_s: Any) -> None:
    assert min(deltas.traffic(before, after, interval_s)) >= 0


@given(st.lists(COUNTS, max_size=4))
def test_total_is_the_sum_of_the_parts(counts: Any) -> None:
    parts = [deltas.Traffic(1.0, **count) for count in counts]
    assert deltas.total(parts, 1.0).requests == sum(part.requests for part in parts)


def test_the_hottest_come_first() -> None:
    names = ("cold", "warm", "hot", "new")
    before = [fake_mesh.model(name, requests=100) for name in names[:3]]
    after = [
        fake_mesh.model(name, requests=100 + more)
        for name, more in zip(names, (0, 20, 300, 900), strict=True)
    ]
    rates = [(row["name"], per_s) for row, per_s in deltas.hottest(before, after, 2.0)]
    assert rates == [
        ("hot", pytest.approx(150)),
        ("warm", pytest.approx(10)),
        ("new", 0),
        ("cold", 0),
    ]


def test_versions_are_counted_apart() -> None:
    before = [
        fake_mesh.model("a", version="1", requests=5),
        fake_mesh.model("a", version="2", requests=5),
    ]
    after = [
        fake_mesh.model("a", version="1", requests=5),
        fake_mesh.model("a", version="2", requests=9),
    ]
    assert [(row["version"], per_s) for row, per_s in deltas.hottest(before, after, 1.0)] == [
        ("2", 4.0),
        ("1", 0.0),
    ]
