"""The pools that follow their load: how many workers each has now, from the workers' reports.

Not saved: a new controller begins with the workers that it finds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from meshserve.core.mesh import hot_models, pins
from meshserve.core.processes import pool_scaling, workers
from meshserve.core.processes.reconcile import ProcessState
from meshserve.core.values import desired, reports

ASKED = "a request came"

USED_FOR_S = 2.0
"""How long a request counts: workers report once a second, so the next may not be known yet."""

Pools = tuple[desired.PoolSettings, ...]


class PoolSizes:
    """The sizes of all pools with `scaling`, by name."""

    def __init__(
        self, workers_: workers.Workers, hot_models_: hot_models.HotModels, pins_: pins.Pins
    ) -> None:
        self.sizes: dict[str, pool_scaling.PoolSize] = {}
        self._workers = workers_
        self._hot_models, self._pins = hot_models_, pins_
        self._requests: dict[str, int] = {}
        self._used_s: dict[str, float] = {}
        # What the last call of `wanted` was given, and its answer: it comes after every event.
        self._source: Pools = ()
        self._wanted: Pools | None = ()

    def wanted(self, pools: Pools) -> Pools:
        """Return the pools with the numbers of workers that they should have now."""
        if self._wanted is None or self._source is not pools:
            self._source, self._wanted = pools, tuple(map(self._sized, pools))
            names = {pool.name for pool in pools if pool.scaling}
            self.sizes = {name: size for name, size in self.sizes.items() if name in names}
        return self._wanted

    def _sized(self, pool: desired.PoolSettings) -> desired.PoolSettings:
        if pool.scaling is None:
            return pool
        size = self.sizes.get(pool.name)
        if size is None:
            count = _least_count(self._workers.of_pool(pool.name))
            # Where it begins is no change of it.
            count = min(max(count, pool.workers_min), pool.workers)
            size = self.sizes[pool.name] = pool_scaling.PoolSize(count)
        size.limit(pool)
        return dataclasses.replace(pool, workers=size.count)

    def ask(self, pool: desired.PoolSettings, now_s: float) -> None:
        """Have a worker at least, because a request waits for one."""
        self._used_s[pool.name] = now_s
        size = self.sizes.get(pool.name)
        if size is not None and not size.count:
            size.set(1, ASKED, now_s)
            self._wanted = None

    def tick(self, now_s: float) -> None:
        """Look at the load of all pools, and change the numbers of those that need it."""
        for pool in self._source:
            size = self.sizes.get(pool.name)
            if size is not None:
                before = size.count
                if not before and self._pins.has_pinned(pool.name):
                    # Its load can't show this need: it has no worker that could load the model.
                    size.set(1, pool_scaling.PINNED_NEED.reason, now_s)
                size.follow(self._load(pool, now_s), pool, now_s)
                if size.count != before:
                    self._wanted = None

    def _load(self, pool: desired.PoolSettings, now_s: float) -> pool_scaling.PoolLoad:
        ready = [
            worker
            for worker in self._workers.of_pool(pool.name)
            if worker.state is ProcessState.READY and worker.report is not None
        ]
        measured = [worker.report for worker in ready if worker.report is not None]
        self._note_use(pool.name, measured, now_s)
        return pool_scaling.PoolLoad(
            workers=len(ready),
            cores=sum(min(1.0, report.use.cores) for report in measured),
            hot=self._hot_models.workers_needed(pool.name),
            lost=_mean(report.use.lost for report in measured),
            queued=_mean(report.use.queued for report in measured),
            used=_budgets(measured),
            is_used=now_s - self._used_s.get(pool.name, -math.inf) <= USED_FOR_S,
            has_pinned=self._pins.has_pinned(pool.name),
        )

    def _note_use(self, pool: str, measured: list[reports.WorkerReport], now_s: float) -> None:
        requests = sum(report.counters.requests for report in measured)
        is_busy = any(report.counters.in_flight for report in measured)
        # Of a worker that has ended nothing is counted: any other sum is taken for requests.
        # A pool that has just fallen asleep would be taken for one that is called.
        if is_busy or (measured and requests != self._requests.get(pool, 0)):
            self._used_s[pool] = now_s
        self._requests[pool] = requests


def _least_count(records: Iterable[workers.WorkerRecord]) -> int:
    """Return how many workers keep all of these, which are numbered from 0."""
    numbers = (record.id.rpartition("-")[2] for record in records)
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def _mean(shares: Iterable[float]) -> float:
    every = list(shares)
    return sum(every) / len(every) if every else 0.0


def _budgets(measured: Iterable[reports.WorkerReport]) -> float:
    """Return the memory of the models in use, in budgets of one worker."""
    return sum(
        max(
            (
                used / budget
                for used, budget in zip(report.use.used, report.budget, strict=True)
                if budget
            ),
            default=0.0,
        )
        for report in measured
    )
