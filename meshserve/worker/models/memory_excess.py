"""Find the models that ran when their worker took far more memory than its budget.

A model's memory in a prediction can't be bounded in a worker, nor told from that of another one
that runs at the same time: what ran is named, and what ran twice is tried alone.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable

EXCESS_SHARE = 0.25
"""Part of the budget beyond it from which on it counts: copies that come and go take a tenth."""

GROWTH_SHARE = 0.1
"""Part of the budget by which the process must have grown lately: what it takes for good, such as a
library, is no model's doing."""

READINGS = 40
"""Readings that "lately" means: ten seconds of ticks."""

REPEATS = 2
"""Times after which a model runs alone: the first time may be another one's doing."""


class MemoryExcess:
    """The readings of one worker's memory, and the copies that ran at excesses, by key.

    `times` has how often each of them did, and `peak_bytes` what was taken the last time.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.times: collections.Counter[str] = collections.Counter()
        self.peak_bytes: dict[str, int] = {}
        self._budget_bytes = budget_bytes
        self._since_s: float | None = None
        self._counted: frozenset[str] = frozenset()
        self._readings: collections.deque[int] = collections.deque(maxlen=READINGS)

    def lasting_s(self, now_s: float) -> float:
        """Return how long the excess has lasted, 0 if there is none."""
        return 0.0 if self._since_s is None else now_s - self._since_s

    def note(self, taken_bytes: int, running: Iterable[str], now_s: float) -> frozenset[str]:
        """Note what the process takes, and the keys of copies that ran since the last reading.

        Return those of them that ran at an excess now, if this is one. It counts again for a copy
        only when the process has grown further, and the copy was idle or the excess over meanwhile:
        a run may take its memory bit by bit, and what was taken stays taken for a while.
        """
        running = frozenset(running)
        low_bytes = min(self._readings, default=taken_bytes)
        self._readings.append(taken_bytes)
        is_excess = taken_bytes > (1 + EXCESS_SHARE) * self._budget_bytes
        if not is_excess:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        self._counted &= running if is_excess else frozenset()
        has_grown = taken_bytes - low_bytes > GROWTH_SHARE * self._budget_bytes
        if not (is_excess and has_grown):
            return frozenset()
        # Growth counts from here on: the same bytes must not be counted twice.
        self._readings.clear()
        self._readings.append(taken_bytes)
        keys = running - self._counted
        self._counted |= keys
        self.times.update(keys)
        self.peak_bytes.update(dict.fromkeys(keys, taken_bytes))
        return keys
