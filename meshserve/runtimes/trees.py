"""Checks of trees in arrays, so that a library follows no index out of memory or in a circle.

XGBoost's and LightGBM's readers trust their files: a broken one ends the process, and with it every
model of the worker.
"""

from __future__ import annotations

import numpy as np


class BadTree(ValueError):
    """The arrays are not those of one tree."""


def check_children(left: np.ndarray, right: np.ndarray) -> None:
    """Raise BadTree unless the inner nodes form one tree with the root 0.

    `left` and `right`, of shape [nodes], have the numbers of each inner node's children, negative
    for a child that is not an inner node.
    """
    inner = np.concatenate([left, right])
    inner = inner[inner >= 0]
    # If every node but the root is the child of exactly one node, no walk from the root returns.
    if inner.size and (
        inner.min() < 1 or inner.max() >= left.size or np.unique(inner).size != inner.size
    ):
        raise BadTree("its nodes do not form a tree")


def check_indices(indices: np.ndarray, count: int, kind: str) -> None:
    """Raise BadTree unless all indices, of any shape, are in [0, count)."""
    if indices.size and (indices.min() < 0 or indices.max() >= count):
        raise BadTree(f"a {kind} has a number that does not exist")


def check_lengths(arrays: dict[str, np.ndarray], count: int) -> None:
    """Raise BadTree unless each array has the shape [count]."""
    for name, array in arrays.items():
        if array.ndim != 1 or array.size != count:
            raise BadTree(f"{name} has {array.size} values, not {count}")


def integers(values: object) -> np.ndarray:
    """Return numbers as an int64 array of the same shape. Raises BadTree unless all are whole."""
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadTree("numbers are missing or are no numbers") from None
    # NaN is unlike itself, so it is refused here too.
    if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
        raise BadTree("a number is not whole")
    return array.astype(np.int64)
