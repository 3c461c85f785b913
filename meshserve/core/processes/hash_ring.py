"""The hash ring on which each model has its home: the same as Envoy's, so that both agree.

Follows `source/extensions/load_balancing_policies/ring_hash/ring_hash_lb.cc` of Envoy, with
`hash_function: XX_HASH` and the shares that `gateway/envoy/ring_shares.py` gives to workers; a test
holds it against a real Envoy.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import xxhash

POINTS_PER_WORKER = 512
"""Of 1,000 workers the busiest has 1.17 × the mean of models and 1.23 × that of bytes."""

SHARES_MIN = 1024
"""Into so many shares a ring is divided at least, so that most pools never need another number."""


def shares(workers: int) -> int:
    """Return the number of shares of the ring of `workers` workers: more than there are workers.

    A power of two, with which Envoy's floating-point sums are exact.
    """
    return max(SHARES_MIN, 1 << workers.bit_length())


class HashRing:
    """The workers of one pool on a ring, on which each has as many points. Order does not matter.

    A worker's points depend on its id alone: one that comes or goes moves only its own models.
    """

    def __init__(self, worker_ids: Iterable[str]) -> None:
        # Sorted, so that equal workers give equal rings.
        self._workers = sorted(set(worker_ids))
        # numpy concatenates no empty list, and a pool may have no ready worker.
        points = [np.empty(0, np.uint64), *map(_points, self._workers)]
        hashes = np.concatenate(points)
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._owners = order // POINTS_PER_WORKER

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


# A pool that has lost a worker mostly gets it back, and with it the same points.
@functools.lru_cache(maxsize=4096)
def _points(worker_id: str) -> np.ndarray:
    """Return the hashes of a worker's points, unsorted, of type uint64."""
    numbers = range(POINTS_PER_WORKER)
    return np.array(
        [xxhash.xxh64_intdigest(f"{worker_id}_{number}".encode()) for number in numbers], np.uint64
    )
