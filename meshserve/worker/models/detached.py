"""What is kept of copies that left: models without their weights, which are back in a millisecond while the file is in memory."""

from __future__ import annotations

from meshserve.worker.models import loader

SHARE_MAX = 1 / 32
"""Of the worker's budget: it is taken off what copies may have, as all that no copy accounts for."""


class DetachedModels:
    """Detached models by their copies' keys, in the order in which they left."""

    def __init__(self, bytes_max: int) -> None:
        self.size_bytes = 0
        self._bytes_max = bytes_max
        self._kept: dict[str, loader.LoadedCopy] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def fits(self, made: loader.LoadedCopy) -> bool:
        """Whether the copy can be detached, and leaves so little behind that it may be kept."""
        return made.can_detach and made.private_bytes <= self._bytes_max

    def keep(self, key: str, made: loader.LoadedCopy) -> list[str]:
        """Keep what is left of a copy that was detached; the keys of those that left longest ago and make way."""
        self._kept[key] = made
        self.size_bytes += made.private_bytes
        oldest = iter(tuple(self._kept))
        gone = []
        while self.size_bytes > self._bytes_max:
            gone.append(next(oldest))
            self.drop(gone[-1])
        return gone

    def take(self, key: str) -> loader.LoadedCopy | None:
        """What was kept of the copy, which is the caller's from now on."""
        made = self._kept.pop(key, None)
        if made is not None:
            self.size_bytes -= made.private_bytes
        return made

    def drop(self, key: str) -> None:
        """Give the memory back, if there is any kept of the copy."""
        made = self.take(key)
        if made is not None:
            made.loaded.close()

    def clear(self) -> list[str]:
        """Give all of it back: memory is short, or the end has come. The keys that it was kept of."""
        gone = list(self._kept)
        for key in gone:
            self.drop(key)
        return gone
