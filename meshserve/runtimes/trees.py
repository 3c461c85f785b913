"""Trees as arrays: the checks that keep a library from following an index out of its memory or round in a circle."""

from __future__ import annotations

import numpy as np


class BadTree(ValueError):
    """The arrays are not those of one tree."""


def check_children(left: np.ndarray, right: np.ndarray) -> None:
    """`left` and `right` have each inner node's children by number, negative where a child is no inner node. Raises BadTree.

    Every node but the root is one node's child, and the root is nobody's: so no walk from the root can come back.
    """
    inner = np.concatenate([left, right])
    inner = inner[inner >= 0]
    if inner.size and (
        inner.min() < 1 or inner.max() >= left.size or np.unique(inner).size != inner.size
    ):
        raise BadTree("its nodes do not form a tree")


def check_indices(indices: np.ndarray, count: int, what: str) -> None:
    """Each index is one of `count`. Raises BadTree."""
    if indices.size and (indices.min() < 0 or indices.max() >= count):
        raise BadTree(f"a {what} has a number that does not exist")


def check_lengths(arrays: dict[str, np.ndarray], count: int) -> None:
    """Each array has `count` items. Raises BadTree."""
    for name, array in arrays.items():
        if array.ndim != 1 or array.size != count:
            raise BadTree(f"{name} has {array.size} values, not {count}")


def integers(values: object) -> np.ndarray:
    """Whole numbers as int64. Raises BadTree for anything else."""
    try:
        array = (
            np.asarray(values, dtype=np.float64) if not isinstance(values, np.ndarray) else values
        )
    except (TypeError, ValueError):
        raise BadTree("numbers are missing or are no numbers") from None
    if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
        raise BadTree("a number is not whole")
    return array.astype(np.int64)
