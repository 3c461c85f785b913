from __future__ import annotations

import numpy as np
import pytest

from bench import growth
from meshserve.core.processes import hash_ring

HASHES = growth.model_hashes(20_000)
SIZES = np.ones(len(HASHES))


def test_our_placement_is_the_meshs_own() -> None:
    ring = hash_ring.HashRing(f"default-{number}" for number in range(12))
    # The ring sorts its workers by their ids, of which "default-10" comes before "default-2".
    placed = growth.constant_points(hash_ring.POINTS_PER_WORKER)(12, HASHES[:500])
    names = [f"model-{number:07d}" for number in range(500)]
    assert [ring.home(name) for name in names] == [f"default-{worker}" for worker in placed]


@pytest.mark.parametrize("before", [10, 128])
def test_only_rings_with_as_many_points_a_worker_move_no_more_than_the_ideal(before: int) -> None:
    def moved(what: str) -> float:
        return growth.steps(growth.PLACEMENTS[what], HASHES, SIZES, [before])[0].moved

    assert moved("512 points a worker") < 1.3
    assert moved("ring of 262,144 points") > 1.5
    if before == 128:
        assert moved("ring of 16,384, then 262,144 points") > 50


def test_maglev_fills_its_table_evenly() -> None:
    every = np.arange(growth.MAGLEV_SIZE, dtype=np.uint64)
    counts = np.bincount(growth.maglev(7, every), minlength=7)
    assert counts.sum() == growth.MAGLEV_SIZE
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("moved", "missed"), [(1.1, 0), (1.3, 1)])
def test_goals_are_held(moved: float, missed: int) -> None:
    claims = growth.goals([growth.Step(10, moved, 1.1)])
    assert [claim.is_reached for claim in claims].count(False) == missed
