"""How much memory an engine's processes take, and how much their machine has left."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import psutil

PERIOD_S = 10.0
"""The time for which a measurement is good enough: each looks at all processes of the machine."""


class MemoryUse(NamedTuple):
    """Resident bytes of this process and its descendants, and bytes that the machine has left."""

    used_bytes: int = 0
    free_bytes: int = 0


class MemoryMeter:
    """Measures this process and its descendants, at most every PERIOD_S seconds."""

    def __init__(self) -> None:
        self._last = MemoryUse()
        # Not 0, because the clock may have begun less than a period ago.
        self._measured_s = float("-inf")

    def use(self, now_s: float) -> MemoryUse:
        """Return the memory use at a time of the monotonic clock, or shortly before."""
        if now_s - self._measured_s >= PERIOD_S:
            self._measured_s = now_s
            self._last = measure()
        return self._last


def measure() -> MemoryUse:
    """Return the memory use now. Pages that processes share count once for each of them."""
    this = psutil.Process()
    used_bytes = 0
    for process in (this, *this.children(recursive=True)):
        # A process may have ended since it was listed.
        with contextlib.suppress(psutil.Error):
            used_bytes += process.memory_info().rss
    return MemoryUse(used_bytes, psutil.virtual_memory().available)
