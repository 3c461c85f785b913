from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import shelves, traces

EQUAL = traces.Models(np.full(4, 10), np.ones(4))
NOWHERE_ELSE = np.zeros(4, np.int64)


def trace(*models: Any) -> Any:
    return traces.Trace("t", np.array(models), np.arange(len(models), dtype=float))


def misses(model: Any, budget_bytes: Any, models: Any = EQUAL, counted_from: int = 0) -> Any:
    return shelves.replay(
        model, models, [shelves.Shelf(models, budget_bytes, "lru")], NOWHERE_ELSE, counted_from
    ).misses


@pytest.mark.parametrize(
    ("order", "budget_bytes", "expected"),
    [((0, 0, 0), 10, 1), ((0, 1, 0, 1), 10, 4), ((0, 1, 0, 1), 20, 2), ((0, 1, 2, 0), 20, 4)],
)
def test_the_least_recently_used_leaves(order: Any, budget_bytes: Any, expected: Any) -> None:
    assert misses(trace(*order), budget_bytes) == expected


def test_filling_is_not_counted() -> None:
    outcome = shelves.replay(
        trace(0, 0, 0, 1), EQUAL, [shelves.Shelf(EQUAL, 20, "lru")], NOWHERE_ELSE, counted_from=2
    )
    assert (outcome.requests, outcome.misses, outcome.lost_s, outcome.hit_ratio) == (2, 1, 1.0, 0.5)


def best(order: Any, sizes: Any, budget_bytes: Any) -> Any:
    """The fewest misses that any choice of who stays between its requests allows."""
    spans = [
        (i, j)
        for i, j in itertools.combinations(range(len(order)), 2)
        if order[i] == order[j] and order[i] not in order[i + 1 : j]
    ]
    fewest = len(order)
    for kept in itertools.product((False, True), repeat=len(spans)):
        stay = [span for span, keeps in zip(spans, kept, strict=True) if keeps]
        # Between one request and the next, all that stay must fit.
        if all(
            sum(sizes[order[i]] for i, j in stay if i <= at < j) <= budget_bytes
            for at in range(len(order))
        ):
            fewest = min(fewest, len(order) - len(stay))
    return fewest


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.integers(9, 30),
)
def test_nobody_can_beat_the_bound(order: Any, sizes: Any, budget_bytes: Any) -> None:
    models = traces.Models(np.array(sizes), np.ones(4))
    bound = shelves.optimum(trace(*order), models, budget_bytes, 0, np.ones(4))
    assert bound <= best(order, sizes, budget_bytes) + 1e-9
    assert bound >= len(set(order)) - 1e-9


def test_the_ring_gives_every_worker_a_share() -> None:
    assert set(shelves.homes(8, 500).tolist()) == set(range(8))
