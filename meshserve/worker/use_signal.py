"""What this worker's time and memory go to, for the controller to scale its pool by."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

from meshserve.core.values import model, reports
from meshserve.worker.models import model_host

SAMPLE_S = 0.25
"""The time between two looks at the loads. They cost microseconds, and no request pays for them."""

PERIOD_S_MIN = 0.5
"""Shorter times say too little: a report that comes sooner repeats the last one."""

COMES_BACK_S = 600.0
"""A model that is loaded again within this time after its eviction had too little memory."""

USED_PERIOD_S = 10.0
"""The time between two sums of the memory in use, which look at every copy."""


class BusyTime:
    """The processor time of this process, and the time in which the calling thread waited for it.

    On a machine that has too much to do a worker gets less time than it needs, and would seem idle
    by its processor time alone.
    """

    def __init__(self) -> None:
        self._path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")

    def read_s(self) -> float:
        """Return the seconds since the process began."""
        return time.process_time() + self._waited_s()

    def _waited_s(self) -> float:
        # Linux' Documentation/scheduler/sched-stats.rst: nanoseconds run, waited, and time slices.
        try:
            return int(self._path.read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0


class UseSignal:
    """The use since the last report. Lives on the event loop's thread."""

    def __init__(
        self,
        host: model_host.ModelHost,
        now_s: Callable[[], float] = time.monotonic,
        spent_s: Callable[[], float] | None = None,
    ) -> None:
        """`now_s` is the event loop's clock, `spent_s` the busy time of this process."""
        self._host = host
        self._read_now_s = now_s
        # Built here, on the event loop's thread, because it reads that thread's file.
        self._read_spent_s = spent_s or BusyTime().read_s
        self._at_s, self._spent_s = now_s(), self._read_spent_s()
        self._used_at_s = 0.0
        self._samples = self._lost = self._queued = 0
        self._use = reports.UNUSED

    async def run(self) -> None:
        """Look at the loads for ever."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            self.sample()

    def sample(self) -> None:
        """Note whether loads wait for others now, and whether one is of a model that came back."""
        admission, evicted_s = self._host.residency.admission, self._host.residency.counts.evicted_s
        since_s = self._read_now_s() - COMES_BACK_S
        self._samples += 1
        self._queued += bool(admission.queue)
        self._lost += any(
            evicted_s.get(key, since_s) > since_s
            for key in (*admission.in_progress, *admission.queue)
        )

    def take(self) -> reports.WorkerUse:
        """Return the use since the last call."""
        now_s, spent_s = self._read_now_s(), self._read_spent_s()
        elapsed_s = now_s - self._at_s
        if elapsed_s >= PERIOD_S_MIN:
            samples = max(1, self._samples)
            self._use = reports.WorkerUse(
                (spent_s - self._spent_s) / elapsed_s,
                self._lost / samples,
                self._queued / samples,
                self._used(now_s),
            )
            self._at_s, self._spent_s = now_s, spent_s
            self._samples = self._lost = self._queued = 0
        return self._use

    def _used(self, now_s: float) -> model.Footprint:
        if now_s - self._used_at_s < USED_PERIOD_S:
            return self._use.used
        self._used_at_s = now_s
        total = model.NO_BYTES
        for copy in self._host.residency.copies.values():
            if now_s - copy.last_used_s < reports.USED_S:
                total = total.plus(copy.booked)
        return total
