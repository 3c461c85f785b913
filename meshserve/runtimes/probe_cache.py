"""What was found out about artifacts, by their digests, so that a model that comes back is not asked again."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)

COUNT_MAX = 1 << 17


class ProbeCache(Generic[K, V]):
    """Values by key, at most so many: then all are forgotten. Equal values are kept once. Any thread may ask."""

    def __init__(self, count_max: int = COUNT_MAX) -> None:
        self._count_max = count_max
        self._values: dict[K, V] = {}
        self._kept: dict[V, V] = {}

    def get(self, key: K) -> V | None:
        """What is known, if it is."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> V:
        """Remember; the value, or the equal one that is kept for others already."""
        if len(self._values) >= self._count_max:
            self._values.clear()
            self._kept.clear()
        value = self._kept.setdefault(value, value)
        self._values[key] = value
        return value
