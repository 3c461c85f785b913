"""Where a model is at home: the ring that Envoy's RING_HASH builds, computed here too, so that both always agree."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import xxhash

# Enough that of 32 workers the busiest has a tenth more than its share; with Envoy's default of 1,024 it has half as much again.
RING_SIZE_MIN = 16_384
RING_SIZE_MAX = 8 * 1024 * 1024
POINTS_MIN = 128
"""For a worker: with 16 the busiest of a thousand has twice its share, with so many a third more."""
STEP = 16


def ring_size(workers: int) -> int:
    """The points on the ring of a pool that should have so many workers. In few and wide steps: at each of them most models move."""
    size = RING_SIZE_MIN
    while size < POINTS_MIN * workers and size < RING_SIZE_MAX:
        size = min(size * STEP, RING_SIZE_MAX)
    return size


class HashRing:
    """The workers of one pool on a ring of hashes. The order in which they are named does not matter."""

    def __init__(self, worker_ids: Iterable[str], size: int = RING_SIZE_MIN) -> None:
        self._workers = sorted(set(worker_ids))
        counts = _counts(len(self._workers), size)
        parts = [
            _hashes(worker_id, count)
            for worker_id, count in zip(self._workers, counts, strict=True)
        ]
        hashes = np.concatenate([*parts, np.empty(0, np.uint64)])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._owners = np.repeat(np.arange(len(counts)), counts)[order]

    def home(self, name: str) -> str:
        """The worker that loads the model called `name`. Raises LookupError on an empty ring."""
        return next(self._clockwise(name))

    def homes(self, name: str, n: int) -> tuple[str, ...]:
        """The first `n` different workers from the model's place on: where requests go when those before are gone."""
        distinct: dict[str, None] = {}
        for owner in self._clockwise(name) if self._workers else ():
            distinct.setdefault(owner)
            if len(distinct) >= n:
                break
        return tuple(distinct)[:n]

    def _clockwise(self, name: str) -> Iterator[str]:
        if not self._workers:
            raise LookupError("a ring without workers is no model's home")
        first = int(np.searchsorted(self._hashes, np.uint64(xxhash.xxh64_intdigest(name.encode()))))
        for step in range(len(self._owners)):
            yield self._workers[self._owners[(first + step) % len(self._owners)]]


def _counts(workers: int, size: int) -> list[int]:
    """How many points each has. Floating point like Envoy's, in the same order: whether one gets a point more is a matter of rounding."""
    if not workers:
        return []
    weight = 1.0 / workers
    scale = min(math.ceil(weight * size) / weight, float(RING_SIZE_MAX))
    counts, made, wanted = [], 0, 0.0
    for _ in range(workers):
        wanted += scale * weight
        counts.append(max(0, math.ceil(wanted) - made))
        made += counts[-1]
    return counts


@functools.lru_cache(maxsize=4096)
def _hashes(worker_id: str, count: int) -> np.ndarray:
    return np.array(
        [xxhash.xxh64_intdigest(f"{worker_id}_{number}".encode()) for number in range(count)],
        np.uint64,
    )
