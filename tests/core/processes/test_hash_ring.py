"""The ring is Envoy's own: its points, their order, and the homes that follow from them."""

from __future__ import annotations

import functools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshserve.core.processes import hash_ring

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
    assert set(points.values()) == {math.ceil(hash_ring.RING_SIZE_MIN / count)}
    shares = Counter(ring_of(count).home(name) for name in NAMES)
    fair = len(NAMES) / count
    assert all(0.7 * fair < shares[worker_id] < 1.4 * fair for worker_id in points)


@pytest.mark.parametrize(
    ("workers", "size"),
    [
        (1, 16_384),
        (128, 16_384),
        (129, 262_144),
        (2048, 262_144),
        (2049, 4_194_304),
        (10**6, 8 << 20),
    ],
)
def test_a_ring_grows_with_its_pool_in_steps(workers: int, size: int) -> None:
    assert hash_ring.ring_size(workers) == size


@pytest.mark.parametrize("count", [1000, 2048])
def test_many_workers_have_even_shares_too(count: int) -> None:
    ring = hash_ring.HashRing(
        [f"default-{number}" for number in range(count)], hash_ring.ring_size(count)
    )
    arcs = np.diff(
        ring._hashes, prepend=ring._hashes[-1:]
    )  # the first arc begins at the last point: differences of uint64 wrap around
    shares = np.bincount(ring._owners, weights=arcs.astype(float)) / 2.0**64
    assert shares.sum() == pytest.approx(1.0)
    assert shares.max() * count < 1.45


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_one_more_worker_takes_its_share_and_moves_little_else(count: int) -> None:
    moved = [name for name in NAMES if ring_of(count).home(name) != ring_of(count + 1).home(name)]
    elsewhere = [name for name in moved if ring_of(count + 1).home(name) != f"default-{count}"]
    assert len(moved) - len(elsewhere) < 1.3 * len(NAMES) / (count + 1)
    # Envoy keeps the ring's size: with more workers each has fewer points, and some models move
    # among the old ones.
    assert len(elsewhere) < 0.15 * len(NAMES)


def test_an_empty_ring_has_no_home() -> None:
    with pytest.raises(LookupError, match="without workers"):
        hash_ring.HashRing([]).home("iris")
    assert hash_ring.HashRing([]).homes("iris", 3) == ()
