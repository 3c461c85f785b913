"""What happened between two answers of the mesh.

Counters only grow. One that shrank belongs to a restarted worker, and has counted from 0 since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Traffic(NamedTuple):
    """The requests, loads and evictions of one worker, or of several, in `interval_s` seconds."""

    interval_s: float
    requests: int = 0
    failures: int = 0
    hits: int = 0
    misses: int = 0
    loads: int = 0
    evictions: int = 0

    @property
    def requests_per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.interval_s

    @property
    def failures_per_s(self) -> float:
        """Failed requests a second."""
        return self.failures / self.interval_s

    @property
    def loads_per_s(self) -> float:
        """Loads a second."""
        return self.loads / self.interval_s


COUNTERS = Traffic._fields[1:]


def traffic(before: Row | None, after: Row, interval_s: float) -> Traffic:
    """Return a worker's traffic between two answers; `before` is None for a new worker."""
    return Traffic(interval_s, *(_growth(before, after, counter) for counter in COUNTERS))


def total(parts: Iterable[Traffic], interval_s: float) -> Traffic:
    """Return the sum of several workers' traffic in the same interval."""
    counts = zip(*(part[1:] for part in parts), strict=True)
    return Traffic(interval_s, *(int(sum(column)) for column in counts))


def hottest(
    before: Iterable[Row], after: Iterable[Row], interval_s: float
) -> list[tuple[Row, float]]:
    """Return models with their requests a second, busiest first.

    Among equally busy models the one with more requests ever comes first.
    """
    earlier = {(row["name"], row["version"]): row for row in before}
    rates = [
        (row, _growth(earlier.get((row["name"], row["version"])), row, "requests") / interval_s)
        for row in after
    ]
    return sorted(rates, key=lambda pair: (-pair[1], -pair[0]["requests"], pair[0]["name"]))


def _growth(before: Row | None, after: Row, counter: str) -> int:
    # What a new row counted before it was first seen happened in no known interval.
    earlier = before[counter] if before else after[counter]
    growth: int = after[counter] - earlier
    return growth if growth >= 0 else after[counter]
