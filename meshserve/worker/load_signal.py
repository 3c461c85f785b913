"""How busy each model keeps this worker, taken between two reports."""

from __future__ import annotations

import heapq
import time

from meshserve.core.values import model, reports
from meshserve.worker.models import model_host

PERIOD_S_MIN = 0.5
"""What is asked for sooner is what was said before: less time tells too little."""

TOLD_MAX, SHARE_MIN = 3, 0.05


class LoadSignal:
    """Made and asked on the event loop's thread, whose time it measures."""

    def __init__(self, of: model_host.ModelHost) -> None:
        self._host = of
        self._at_s = time.monotonic()
        self._spent_s = time.thread_time()
        self._told: tuple[reports.ModelDemand, ...] = ()

    def take(self) -> tuple[reports.ModelDemand, ...]:
        """The busiest models since the last time. One keeps the worker busy by its requests' part of the event loop, or by its queue."""
        now_s, spent_s = time.monotonic(), time.thread_time()
        elapsed_s = now_s - self._at_s
        if elapsed_s >= PERIOD_S_MIN:
            self._told = self._demands(elapsed_s, (spent_s - self._spent_s) / elapsed_s)
            self._at_s, self._spent_s = now_s, spent_s
        return self._told

    def _demands(self, elapsed_s: float, loop_share: float) -> tuple[reports.ModelDemand, ...]:
        asked = self._host.take_asked()
        each_share = loop_share / max(1, sum(asked.values()))
        found = (
            reports.ModelDemand(
                id_, max(count * each_share, self._take_saturated_s(id_) / elapsed_s)
            )
            for id_, count in asked.items()
        )
        return tuple(
            heapq.nlargest(
                TOLD_MAX,
                (each for each in found if each.share >= SHARE_MIN),
                key=lambda each: each.share,
            )
        )

    def _take_saturated_s(self, id_: model.ModelId) -> float:
        counts = self._host.tallies[id_]
        saturated_s, counts.saturated_s = counts.saturated_s, 0.0
        return saturated_s
