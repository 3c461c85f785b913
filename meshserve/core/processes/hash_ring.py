"""The hash ring on which each model has its home: the same as Envoy's, so that both agree.

Follows `source/extensions/load_balancing_policies/ring_hash/ring_hash_lb.cc` of Envoy, with
`hash_function: XX_HASH` and equal weights; a test holds it against a real Envoy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import xxhash

RING_SIZE_MIN = 16_384
"""Of 32 workers the busiest gets 1.1 × its share; with Envoy's default of 1,024 points 1.47 ×."""

RING_SIZE_MAX = 8 * 1024 * 1024
"""Envoy's own limit."""

POINTS_PER_WORKER_MIN = 128
"""Of 1,000 workers the busiest gets 1.20 × its share, with 16 points a worker 2.11 ×."""

GROWTH = 16
"""Rings grow in few and wide steps, because at each step most models get another home."""


def ring_size(workers: int) -> int:
    """Return the number of points on the ring of a pool of `workers` workers."""
    size = RING_SIZE_MIN
    while size < POINTS_PER_WORKER_MIN * workers and size < RING_SIZE_MAX:
        size = min(size * GROWTH, RING_SIZE_MAX)
    return size


class HashRing:
    """The workers of one pool on a ring of `size` points. Their order does not matter."""

    def __init__(self, worker_ids: Iterable[str], size: int = RING_SIZE_MIN) -> None:
        # Sorted, because the place in this order decides which worker gets a point more.
        self._workers = sorted(set(worker_ids))
        counts = _point_counts(len(self._workers), size)
        hashes = np.concatenate(
            [
                *(
                    _point_hashes(worker_id, count)
                    for worker_id, count in zip(self._workers, counts, strict=True)
                ),
                # numpy concatenates no empty list, and a pool may have no ready worker.
                np.empty(0, np.uint64),
            ]
        )
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._owners = np.repeat(np.arange(len(counts)), counts)[order]

    def home(self, name: str) -> str:
        """Return the worker that loads the model `name`. Raises LookupError on an empty ring."""
        return next(self._clockwise(name))

    def homes(self, name: str, count: int) -> tuple[str, ...]:
        """Return the first `count` different workers on the ring from the name's point on.

        Requests go to the next of them when those before it are gone.
        """
        # A dict, because it keeps the order on the ring.
        homes: dict[str, None] = {}
        for owner in self._clockwise(name) if self._workers else ():
            homes.setdefault(owner)
            if len(homes) >= count:
                break
        return tuple(homes)[:count]

    def _clockwise(self, name: str) -> Iterator[str]:
        if not self._workers:
            raise LookupError("a ring without workers is no model's home")
        first = int(np.searchsorted(self._hashes, np.uint64(xxhash.xxh64_intdigest(name.encode()))))
        for step in range(len(self._owners)):
            yield self._workers[self._owners[(first + step) % len(self._owners)]]


def _point_counts(workers: int, size: int) -> list[int]:
    """Return the number of points of each worker."""
    if not workers:
        return []
    # Floating point in the same order of operations as Envoy's: rounding decides who gets a point
    # more, and one point more moves models.
    weight = 1.0 / workers
    scale = min(math.ceil(weight * size) / weight, float(RING_SIZE_MAX))
    counts, placed, target = [], 0, 0.0
    for _ in range(workers):
        target += scale * weight
        counts.append(max(0, math.ceil(target) - placed))
        placed += counts[-1]
    return counts


# A pool that has lost a worker mostly gets it back, and with it a ring of the same points.
@functools.lru_cache(maxsize=4096)
def _point_hashes(worker_id: str, count: int) -> np.ndarray:
    """Return the hashes of a worker's points: `count` numbers of type uint64, unsorted."""
    return np.array(
        [xxhash.xxh64_intdigest(f"{worker_id}_{number}".encode()) for number in range(count)],
        np.uint64,
    )
