"""A priority queue of copies by eviction score that does no work when a copy is used."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Generator

Entry = tuple[float, int, str]

STALE_MIN = 64
"""Fewer stale entries are cheaper to skip than to remove."""


class EvictionQueue:
    """Keys by score, lowest first.

    Scores only grow, so the score in an entry is a lower bound; it is corrected when the entry
    comes to the front. A removed key leaves its entry behind, which is skipped there.
    """

    def __init__(self, score_of: Callable[[str], float]) -> None:
        self._score_of = score_of
        self._heap: list[Entry] = []
        self._entries: dict[str, Entry] = {}
        # Breaks ties by order of arrival.
        self._serial = itertools.count()

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entry_count(self) -> int:
        """The entries in the heap, stale ones included: bounded by the number of keys."""
        return len(self._heap)

    def add(self, key: str) -> None:
        """Add a key; a key that is in the queue stays as it is."""
        if key not in self._entries:
            heapq.heappush(self._heap, self._entry(key))

    def discard(self, key: str) -> None:
        """Remove a key if it is in the queue."""
        is_removed = self._entries.pop(key, None) is not None
        # Only when most entries are stale, so that a removal takes a constant time on average.
        if is_removed and len(self._heap) > 2 * len(self._entries) + STALE_MIN:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def in_order(self) -> Generator[tuple[float, str], None, None]:
        """Yield current scores and keys, lowest score first.

        No key may be added or discarded before the iteration has ended or is closed.
        """
        seen: dict[str, Entry] = {}
        corrected = 0
        try:
            while self._heap:
                entry = heapq.heappop(self._heap)
                score, _, key = entry
                if self._entries.get(key) is not entry:  # stale
                    continue
                if self._score_of(key) <= score:
                    seen[key] = entry
                    yield score, key
                    continue
                heapq.heappush(self._heap, self._entry(key))
                corrected += 1
                # Where most entries are stale, one heapify is cheaper than a push for each.
                if corrected > STALE_MIN + len(self._entries) // 8:
                    self._correct_all(seen)
                    corrected = 0
        # Also if the reader stops early: what it has seen is still in the queue.
        finally:
            for entry in seen.values():
                heapq.heappush(self._heap, entry)

    def _entry(self, key: str) -> Entry:
        entry = (self._score_of(key), next(self._serial), key)
        self._entries[key] = entry
        return entry

    def _correct_all(self, seen: Collection[str]) -> None:
        """Give all keys but those in `seen`, which the iteration has taken out, a current entry."""
        self._heap = [self._entry(key) for key in self._entries if key not in seen]
        heapq.heapify(self._heap)
