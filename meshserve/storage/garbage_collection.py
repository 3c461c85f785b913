"""Chooses the entries to remove from a cache that is too big. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

KEPT_SHARE = 0.9
"""The share of the limit that is left after a removal, so that the next one is not due at once."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One artifact in the cache.

    `size_bytes` is what it takes on disk. `used_s` is its last use, in seconds since the epoch.
    """

    digest: str
    path: Path
    size_bytes: int
    used_s: float


def choose_removals(
    entries: Iterable[CacheEntry], size_bytes_max: int, held: Collection[str], young_s: float
) -> list[CacheEntry]:
    """Return the entries to remove, least recently used first, until the rest is within the limit.

    Keeps entries whose digests are held, and those used since `young_s` (seconds since the epoch):
    a process may be about to hold or open them.
    """
    oldest_first = sorted(entries, key=lambda entry: entry.used_s)
    excess_bytes = sum(entry.size_bytes for entry in oldest_first) - size_bytes_max
    if excess_bytes <= 0:
        return []
    excess_bytes += int(size_bytes_max * (1 - KEPT_SHARE))
    removals: list[CacheEntry] = []
    for entry in oldest_first:
        # The first young one ends the loop: all that follow were used later.
        if excess_bytes <= 0 or entry.used_s >= young_s:
            break
        if entry.digest not in held:
            removals.append(entry)
            excess_bytes -= entry.size_bytes
    return removals
