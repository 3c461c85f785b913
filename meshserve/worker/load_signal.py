"""How busy each model keeps this worker, for the controller to spread busy ones."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

from meshserve.core.values import reports
from meshserve.worker.models import model_host

PERIOD_S_MIN = 0.5
"""Shorter times say too little: a report that comes sooner repeats the last one."""

DEMANDS_MAX, SHARE_MIN = 3, 0.05


class LoadSignal:
    """The load since the last report. Lives on the event loop's thread, whose time it measures."""

    def __init__(
        self,
        host: model_host.ModelHost,
        now_s: Callable[[], float] = time.monotonic,
        spent_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """`spent_s` returns the CPU time of the calling thread."""
        self._host = host
        self._read_now_s = now_s
        # This thread's CPU time: runs in other threads leave the event loop free.
        self._read_spent_s = spent_s
        self._at_s, self._spent_s = now_s(), spent_s()
        self._demands: tuple[reports.ModelDemand, ...] = ()

    def take(self) -> tuple[reports.ModelDemand, ...]:
        """Return the busiest models since the last call.

        A model's share is the larger of its requests' part of the event loop's time and the part of
        the time in which its queue was longer than one run.
        """
        now_s, spent_s = self._read_now_s(), self._read_spent_s()
        elapsed_s = now_s - self._at_s
        if elapsed_s >= PERIOD_S_MIN:
            self._demands = self._measure(elapsed_s, (spent_s - self._spent_s) / elapsed_s)
            self._at_s, self._spent_s = now_s, spent_s
        return self._demands

    def _measure(self, elapsed_s: float, loop_share: float) -> tuple[reports.ModelDemand, ...]:
        loads = self._host.take_load()
        request_share = loop_share / max(1, sum(load.requests for load in loads.values()))
        # Requests of a worker's models cost about the same but for the model's run, and a run that
        # is long is in a thread: the loop's time is shared out by numbers of requests.
        demands = (
            reports.ModelDemand(
                id_, max(load.requests * request_share, load.saturated_s / elapsed_s)
            )
            for id_, load in loads.items()
        )
        busy = (demand for demand in demands if demand.share >= SHARE_MIN)
        return tuple(heapq.nlargest(DEMANDS_MAX, busy, key=lambda demand: demand.share))
