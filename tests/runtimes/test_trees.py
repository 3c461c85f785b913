from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.runtimes import trees


def arrays(*lists: Any) -> Any:
    return [np.array(numbers) for numbers in lists]


@pytest.mark.parametrize(
    ("left", "right"),
    [([-1], [-1]), ([1, -1, -1], [2, -1, -1]), ([1, -1, 3, -1, -1], [2, -1, 4, -1, -1]), ([], [])],
)
def test_a_tree_passes(left: Any, right: Any) -> None:
    trees.check_children(*arrays(left, right))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([0], [-1]),
        ([1, 0], [-1, -1]),
        ([1, -1], [1, -1]),
        ([2, -1], [-1, -1]),
        ([1, 2, 1], [-1, -1, -1]),
    ],
    ids=["itself", "root again", "one child twice", "out of range", "two parents"],
)
def test_arrays_that_are_no_tree_are_refused(left: Any, right: Any) -> None:
    with pytest.raises(trees.BadTree):
        trees.check_children(*arrays(left, right))


@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), min_size=1, max_size=6))
def test_every_walk_in_an_accepted_tree_ends(pairs: Any) -> None:
    left, right = np.array(pairs).T
    try:
        trees.check_children(left, right)
    except trees.BadTree:
        return
    waiting, steps = [0], 0
    while waiting:
        node = waiting.pop()
        waiting += [child for child in (left[node], right[node]) if child >= 0]
        steps += 1
        assert steps <= len(pairs)


def test_numbers_that_do_not_exist_are_refused() -> None:
    trees.check_indices(np.array([0, 2]), 3, "leaf")
    trees.check_indices(np.array([], int), 0, "leaf")
    for wrong in ([3], [-1]):
        with pytest.raises(trees.BadTree, match="a leaf has a number that does not exist"):
            trees.check_indices(np.array(wrong), 3, "leaf")


def test_lengths_must_agree() -> None:
    trees.check_lengths({"a": np.zeros(2)}, 2)
    for wrong in (np.zeros(3), np.zeros((2, 1))):
        with pytest.raises(trees.BadTree, match="a has"):
            trees.check_lengths({"a": wrong}, 2)


@pytest.mark.parametrize("values", [[1.5], ["x"], [None], [[1], [2, 3]]], ids=str)
def test_only_whole_numbers_are_integers(values: Any) -> None:
    assert trees.integers([1, 2.0]).tolist() == [1, 2]
    with pytest.raises(trees.BadTree):
        trees.integers(values)
