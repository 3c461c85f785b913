"""Where a model is at home: the ring that Envoy's RING_HASH builds, computed here too, so that both always agree."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator
from itertools import count

import xxhash

# Enough that of 32 workers the busiest has a tenth more than its share; with Envoy's default of 1,024 it has half as much again.
RING_SIZE_MIN = 16_384
RING_SIZE_MAX = 8 * 1024 * 1024


class Ring:
    """The workers of one pool on a ring of hashes. The order in which they are named does not matter."""

    def __init__(self, worker_ids: Iterable[str]) -> None:
        points = sorted(_points(sorted(set(worker_ids))))
        self._hashes = [point for point, _ in points]
        self._owners = [owner for _, owner in points]

    def home(self, name: str) -> str:
        """The worker that loads the model called `name`. Raises LookupError on an empty ring."""
        return next(self._clockwise(name))

    def homes(self, name: str, n: int) -> tuple[str, ...]:
        """The first `n` different workers from the model's place on: where requests go when those before are gone."""
        distinct: dict[str, None] = {}
        for owner in self._clockwise(name) if self._owners else ():
            distinct.setdefault(owner)
            if len(distinct) >= n:
                break
        return tuple(distinct)[:n]

    def _clockwise(self, name: str) -> Iterator[str]:
        if not self._owners:
            raise LookupError("a ring without workers is no model's home")
        first = bisect.bisect_left(self._hashes, xxhash.xxh64_intdigest(name.encode()))
        for step in range(len(self._owners)):
            yield self._owners[(first + step) % len(self._owners)]


def _points(worker_ids: list[str]) -> Iterator[tuple[int, str]]:
    # Floating point like Envoy's, in the same order: whether a worker gets one point more is a matter of rounding.
    if not worker_ids:
        return
    weight = 1.0 / len(worker_ids)
    scale = min(math.ceil(weight * RING_SIZE_MIN) / weight, float(RING_SIZE_MAX))
    made, wanted = 0, 0.0
    for worker_id in worker_ids:
        wanted += scale * weight
        for number in count():
            if made >= wanted:
                break
            yield xxhash.xxh64_intdigest(f"{worker_id}_{number}".encode()), worker_id
            made += 1
