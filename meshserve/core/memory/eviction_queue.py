"""Copies in the order in which they would leave, kept without work on each use."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Generator

Entry = tuple[float, int, str]

STALE_MIN = 64
"""So many stale entries are not worth sweeping up."""


class EvictionQueue:
    """Keys by score, cheapest first. Scores only grow, so an old entry is a lower bound and is put right when it surfaces."""

    def __init__(self, score_of: Callable[[str], float]) -> None:
        self._score_of = score_of
        self._heap: list[Entry] = []
        self._entries: dict[str, Entry] = {}
        self._serial = itertools.count()

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entry_count(self) -> int:
        """How many entries are kept, stale ones too: bounded by the number of keys."""
        return len(self._heap)

    def add(self, key: str) -> None:
        """Rank a key; adding one that is there changes nothing."""
        if key not in self._entries:
            heapq.heappush(self._heap, self._entry(key))

    def discard(self, key: str) -> None:
        """Take a key out, if it is there. Its entry is swept up later."""
        if (
            self._entries.pop(key, None) is not None
            and len(self._heap) > 2 * len(self._entries) + STALE_MIN
        ):
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def in_order(self) -> Generator[tuple[float, str], None, None]:
        """All scores and keys as of now, cheapest first. Nothing may be added or discarded until the iteration has ended or is closed."""
        seen: dict[str, Entry] = {}
        refreshed = 0
        try:
            while self._heap:
                entry = heapq.heappop(self._heap)
                score, _, key = entry
                if self._entries.get(key) is not entry:
                    continue
                if self._score_of(key) <= score:
                    seen[key] = entry
                    yield score, key
                    continue
                heapq.heappush(self._heap, self._entry(key))
                refreshed += 1
                if refreshed > STALE_MIN + len(self._entries) // 8:
                    self._refresh(seen)
                    refreshed = 0
        finally:
            for entry in seen.values():
                heapq.heappush(self._heap, entry)

    def _entry(self, key: str) -> Entry:
        entry = (self._score_of(key), next(self._serial), key)
        self._entries[key] = entry
        return entry

    def _refresh(self, but: Collection[str]) -> None:
        """Put all entries right at once, which costs less than one by one where most are stale."""
        self._heap = [self._entry(key) for key in self._entries if key not in but]
        heapq.heapify(self._heap)
