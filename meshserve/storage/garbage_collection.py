"""Which entries leave a cache that is too big: a function of what there is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

KEPT_SHARE = 0.9
"""Of the limit, after a trim: the next one is not due at once."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One artifact in the cache, as it takes room on disk. `used_s` is on the system's clock."""

    digest: str
    path: Path
    size_bytes: int
    used_s: float


def choose_removals(
    entries: Iterable[CacheEntry], size_bytes_max: int, held: Collection[str], young_s: float
) -> list[CacheEntry]:
    """Those that go, used longest ago first, until what stays is within the limit.

    None that is held goes, and none that was used since `young_s`: somebody may be about to hold it or to open it.
    """
    oldest_first = sorted(entries, key=lambda entry: entry.used_s)
    excess_bytes = sum(entry.size_bytes for entry in oldest_first) - size_bytes_max
    if excess_bytes <= 0:
        return []
    excess_bytes += int(size_bytes_max * (1 - KEPT_SHARE))
    gone: list[CacheEntry] = []
    for entry in oldest_first:
        if excess_bytes <= 0 or entry.used_s >= young_s:
            break
        if entry.digest not in held:
            gone.append(entry)
            excess_bytes -= entry.size_bytes
    return gone
