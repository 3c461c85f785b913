"""The ring is Envoy's own: its points, their order, and the homes that follow from them."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshserve.core.processes import hash_ring
from meshserve.core.values import desired

NAMES = [f"model-{number}" for number in range(4000)]
counts = st.integers(2, 12)
names = st.text(min_size=1, max_size=40)


@functools.cache
def ring_of(count: int) -> hash_ring.HashRing:
    return hash_ring.HashRing(f"default-{number}" for number in range(count))


@settings(deadline=None)
@given(counts, names)
def test_a_home_is_one_of_the_workers(count: int, name: str) -> None:
    assert ring_of(count).home(name) in {f"default-{number}" for number in range(count)}


@given(st.permutations([f"default-{number}" for number in range(6)]))
@settings(max_examples=10, deadline=None)
def test_the_order_of_workers_does_not_matter(shuffled: list[str]) -> None:
    ring = hash_ring.HashRing(shuffled)
    assert [ring.home(name) for name in NAMES[:100]] == [
        ring_of(6).home(name) for name in NAMES[:100]
    ]


@settings(deadline=None)
@given(counts, names, st.integers(1, 15))
def test_homes_are_different_and_begin_at_home(count: int, name: str, n: int) -> None:
    homes = ring_of(count).homes(name, n)
    assert homes[0] == ring_of(count).home(name)
    assert len(homes) == len(set(homes)) == min(n, count)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 32])
def test_models_are_spread_evenly(count: int) -> None:
    points = Counter(ring_of(count)._workers[owner] for owner in ring_of(count)._owners)
    assert set(points.values()) == {hash_ring.POINTS_PER_WORKER}
    shares = Counter(ring_of(count).home(name) for name in NAMES)
    fair = len(NAMES) / count
    assert all(0.7 * fair < shares[worker_id] < 1.4 * fair for worker_id in points)


@pytest.mark.parametrize(
    ("workers", "shares"),
    [(0, 1024), (1, 1024), (1023, 1024), (1024, 2048), (desired.WORKERS_MAX, 16_384)],
)
def test_a_ring_has_more_shares_than_workers(workers: int, shares: int) -> None:
    assert hash_ring.shares(workers) == shares > workers
    # More points Envoy refuses.
    assert shares * hash_ring.POINTS_PER_WORKER <= 8 << 20


@pytest.mark.parametrize("count", [10, 128, 1000])
def test_all_workers_have_even_shares(count: int) -> None:
    ring = ring_of(count)
    arcs = np.diff(
        ring._hashes, prepend=ring._hashes[-1:]
    )  # the first arc begins at the last point: differences of uint64 wrap around
    shares = np.bincount(ring._owners, weights=arcs.astype(float)) / 2.0**64
    assert shares.sum() == pytest.approx(1.0)
    assert shares.max() * count < 1.2


@pytest.mark.parametrize("count", [1, 2, 4, 16, 128, 255])
def test_one_more_worker_takes_its_share_and_moves_nothing_else(count: int) -> None:
    before, after = ring_of(count), ring_of(count + 1)
    moved = [name for name in NAMES if before.home(name) != after.home(name)]
    assert {after.home(name) for name in moved} == {f"default-{count}"}


def test_an_empty_ring_has_no_home() -> None:
    with pytest.raises(LookupError, match="without workers"):
        hash_ring.HashRing([]).home("iris")
    assert hash_ring.HashRing([]).homes("iris", 3) == ()
