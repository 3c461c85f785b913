"""Values of made-up inputs, and other styles of them for models that refuse the plain ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from meshserve.runtimes import datatypes

Style: TypeAlias = "Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]"


def unchanged(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return inputs of any shapes as they are."""
    return feeds


def _zero_integers(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return zeros for integers: offsets must begin with 0, edges may only name nodes that came."""
    return {
        name: np.zeros_like(array) if array.dtype.kind in "iu" else array
        for name, array in feeds.items()
    }


def _ascending(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return numbers that grow from 1 on, as for times and lengths."""
    return {
        name: array
        if array.dtype.kind not in "iuf"
        else (np.arange(array.size).reshape(array.shape) + 1).astype(array.dtype)
        for name, array in feeds.items()
    }


def _one_hot(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a single 1 in each last dimension, as for categories and probabilities."""
    changed = dict(feeds)
    for name, array in feeds.items():
        if array.dtype.kind in "iuf" and array.ndim:
            changed[name] = np.zeros_like(array)
            changed[name][..., 0] = 1
    return changed


STYLES: tuple[Style, ...] = (unchanged, _zero_integers, _ascending, _one_hot)
"""How made-up values are changed, tried in this order, for models that refuse the plain ones."""


def make(datatype: str, shape: tuple[int, ...], position: int) -> np.ndarray:
    """Return small values of a datatype and a shape; those of another input's position differ."""
    dtype = datatypes.NUMPY_TYPES[datatype]
    steps = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape) + position
    if datatype == "BYTES":
        return np.where(steps % 2, b"b", b"a").astype(np.object_)
    # bfloat16 is the upper half of a float32.
    if datatype == "BF16":
        return (_fractions(steps).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    # Integers stay below 2, because they are often indices of small tables.
    return (_fractions(steps) if dtype.kind == "f" else steps % 2).astype(dtype)


def _fractions(steps: np.ndarray) -> np.ndarray:
    # 61 and 97 have no common factor, so 97 steps in a row give 97 different numbers.
    return np.asarray(steps * 61 % 97 / 97)
