"""Chooses the entries to remove from a cache that is too big. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

KEPT_SHARE = 0.9
"""The share of the limit that is left after a removal, so that the next one is not due at once."""

BIG_SHARE = 0.25
"""An entry of more than this share of the limit is big: a few of them would fill the cache."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One artifact in the cache.

    `size_bytes` is what it takes on disk. `used_s` is its last use, in seconds since the epoch.
    """

    digest: str
    path: Path
    size_bytes: int
    used_s: float


def list_idle(
    entries: Iterable[CacheEntry], held: Collection[str], young_s: float
) -> list[CacheEntry]:
    """Return the entries that are not held, and were not used since `young_s`, oldest first.

    `young_s` is in seconds since the epoch: a process may be about to hold or open younger ones.
    """
    idle = [entry for entry in entries if entry.digest not in held and entry.used_s < young_s]
    return sorted(idle, key=lambda entry: entry.used_s)


def choose_share(idle: Sequence[CacheEntry], share: float) -> list[CacheEntry]:
    """Return the first of the entries that have this share of their bytes together."""
    left_bytes = share * sum(entry.size_bytes for entry in idle)
    removals: list[CacheEntry] = []
    for entry in idle:
        if left_bytes <= 0:
            break
        removals.append(entry)
        left_bytes -= entry.size_bytes
    return removals


def choose_removals(
    entries: Collection[CacheEntry], size_bytes_max: int, held: Collection[str], young_s: float
) -> list[CacheEntry]:
    """Return the entries to remove until the rest is within the limit, the first to go first.

    Only idle ones go, by `list_idle`: the big ones before the small ones, each by their last use.
    Big ones that are not idle do not count.
    """
    big_bytes = size_bytes_max * BIG_SHARE
    idle = list_idle(entries, held, young_s)
    kept = set(entries).difference(idle)
    excess_bytes = sum(entry.size_bytes for entry in idle) - size_bytes_max
    # One big model in use would push out all the small ones.
    excess_bytes += sum(entry.size_bytes for entry in kept if entry.size_bytes <= big_bytes)
    if excess_bytes <= 0:
        return []
    excess_bytes += int(size_bytes_max * (1 - KEPT_SHARE))
    removals: list[CacheEntry] = []
    for entry in sorted(idle, key=lambda entry: entry.size_bytes <= big_bytes):
        if excess_bytes <= 0:
            break
        removals.append(entry)
        excess_bytes -= entry.size_bytes
    return removals
