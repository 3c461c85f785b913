"""Detached models: copies that left, without their mapped weights, to be attached again.

Attaching takes about a millisecond while the file is in the page cache; a load takes many.
"""

from __future__ import annotations

from meshserve.worker.models import loader

SHARE_MAX = 1 / 32
"""Part of the worker's budget that they may take. It is lost to copies, as all memory is that no
copy accounts for."""


class DetachedModels:
    """Detached copies by key, in the order in which they left."""

    def __init__(self, bytes_max: int) -> None:
        self.size_bytes = 0
        self._bytes_max = bytes_max
        self._copies: dict[str, loader.LoadedCopy] = {}

    def __contains__(self, key: str) -> bool:
        """Return whether the copy is kept."""
        return key in self._copies

    def can_keep(self, loaded_copy: loader.LoadedCopy) -> bool:
        """Return whether the copy can be detached and is small enough then."""
        return loaded_copy.can_detach and loaded_copy.private_bytes <= self._bytes_max

    def keep(self, key: str, detached: loader.LoadedCopy) -> list[str]:
        """Keep a detached copy; return the keys of those that were closed to make room for it."""
        self._copies[key] = detached
        self.size_bytes += detached.private_bytes
        # Dictionaries keep the order of arrival.
        oldest = iter(tuple(self._copies))
        closed = []
        while self.size_bytes > self._bytes_max:
            closed.append(next(oldest))
            self.drop(closed[-1])
        return closed

    def take(self, key: str) -> loader.LoadedCopy | None:
        """Remove the copy and return it; the caller has to attach or close it."""
        detached = self._copies.pop(key, None)
        if detached is not None:
            self.size_bytes -= detached.private_bytes
        return detached

    def drop(self, key: str) -> None:
        """Close the copy if it is kept."""
        detached = self.take(key)
        if detached is not None:
            detached.loaded.close()

    def clear(self) -> list[str]:
        """Close all copies and return their keys."""
        keys = list(self._copies)
        for key in keys:
            self.drop(key)
        return keys
