"""What happened between two answers of the mesh. Counters only grow; one that shrank belongs to a restarted worker and counts from 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Json = Mapping[str, Any]


class Traffic(NamedTuple):
    """Events of one worker, or of several, in `interval_s` seconds."""

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


def traffic(before: Json | None, after: Json, interval_s: float) -> Traffic:
    """What one worker did between two answers about it; `before` is None for a worker that is new."""
    return Traffic(interval_s, *(_grown(before, after, counter) for counter in COUNTERS))


def together(parts: Iterable[Traffic], interval_s: float) -> Traffic:
    """What several did in the same interval."""
    listed = list(parts)
    return Traffic(
        interval_s, *(sum(getattr(part, counter) for part in listed) for counter in COUNTERS)
    )


def hottest(
    before: Iterable[Json], after: Iterable[Json], interval_s: float
) -> list[tuple[Json, float]]:
    """Models with their requests a second, busiest first; among equals the one with more requests ever."""
    earlier = {(row["name"], row["version"]): row for row in before}
    rated = [
        (row, _grown(earlier.get((row["name"], row["version"])), row, "requests") / interval_s)
        for row in after
    ]
    return sorted(rated, key=lambda pair: (-pair[1], -pair[0]["requests"], pair[0]["name"]))


def _grown(before: Json | None, after: Json, counter: str) -> int:
    earlier = before[counter] if before else after[counter]
    growth: int = after[counter] - earlier
    return growth if growth >= 0 else after[counter]
