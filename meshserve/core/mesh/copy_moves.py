"""Copies of workers that are about to go, which other workers load before them."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from meshserve.core.catalog import catalog_index
from meshserve.core.mesh import copy_requests, pins
from meshserve.core.processes import hash_ring, workers
from meshserve.core.values import commands, events, model, reports

LOADS_AT_ONCE = 16
"""Orders under way for one node: the workers that load have limits of their own."""

COPIES_MAX = 2000
"""Of each worker so many copies are loaded elsewhere, those with the most requests. At 2.8 ms for a
small one that is about 6 s; the rest is loaded when it is asked for, as after any change."""


class CopyMoves:
    """The loads that one node's drain waits for. `failed` ones are left to the next request."""

    def __init__(
        self, index: catalog_index.CatalogIndex, workers_: workers.Workers, out: commands.Outbox
    ) -> None:
        self.done = 0
        self.failed = 0
        self.without_room = 0
        self._index = index
        self._workers = workers_
        self._out = out
        self._planned: set[str] = set()
        self._booked: dict[str, model.Footprint] = {}
        self._waiting: collections.deque[pins.Place] = collections.deque()
        self._loading: set[pins.Place] = set()

    @property
    def open(self) -> int:
        """How many loads wait or are under way."""
        return len(self._waiting) + len(self._loading)

    def has_planned(self, worker_id: str) -> bool:
        """Return whether the worker's copies have been looked at."""
        return worker_id in self._planned

    def plan(self, worker: workers.WorkerRecord, ring: hash_ring.HashRing) -> None:
        """Have the worker's copies loaded where `ring`, that of the workers that stay, leads them.

        Pinned ones come first, and are loaded whether there is room or not.
        """
        self._planned.add(worker.id)
        copies = sorted(
            (copy for copy in worker.copies.values() if copy.state == "ready"),
            key=lambda copy: (not copy.pinned, -copy.requests, copy.id),
        )
        for copy in copies[:COPIES_MAX]:
            for target in sorted(self._targets(worker, copy, ring)):
                if (target, copy.id) in self._waiting or self._has(target, copy.id):
                    continue
                if copy.pinned or self._book(target, copy.footprint):
                    self._waiting.append((target, copy.id))
                else:
                    self.without_room += 1

    def _targets(
        self, worker: workers.WorkerRecord, copy: reports.CopyReport, ring: hash_ring.HashRing
    ) -> set[str]:
        # Each alias has a home of its own. A copy for which the worker is no home is one of a busy
        # model, which other workers have too.
        pool = worker.settings.pool
        names = (copy.id.name, *self._index.aliases_of(copy.id.name))
        return {ring.home(name) for name in names if self._workers.home(pool, name) == worker.id}

    def _has(self, target: str, id_: model.ModelId) -> bool:
        copy = self._workers.records[target].copies.get(id_)
        return copy is not None and copy.state == "ready"

    def _book(self, target: str, size: model.Footprint) -> bool:
        """Return whether the worker has room for so much beside what it has and will get."""
        report = self._workers.records[target].report
        if report is None:
            return True
        coming = self._booked.get(target, model.NO_BYTES).plus(size)
        if not report.booked.plus(coming).fits_in(report.budget):
            return False
        self._booked[target] = coming
        return True

    def advance(self) -> None:
        """Order as many loads as may be under way."""
        while self._waiting and len(self._loading) < LOADS_AT_ONCE:
            place = self._waiting.popleft()
            worker_id, id_ = place
            # It may have gone itself meanwhile, or the model may have been withdrawn.
            if self._workers.is_ready(worker_id) and self._index.models.declared(id_):
                self._loading.add(place)
                self._out.append(copy_requests.load_command(self._index, *place))
            else:
                self.failed += 1

    def copy_ensured(self, event: events.CopyEnsured) -> None:
        """Count a load that has ended, if it was one of these."""
        if (event.worker_id, event.id) in self._loading:
            self._loading.remove((event.worker_id, event.id))
            self.failed += bool(event.failure)
            self.done += not event.failure

    def forget_worker(self, worker_id: str) -> None:
        """Count the loads on a worker whose process has ended as failed."""
        lost = {place for place in self._loading if place[0] == worker_id}
        self._loading -= lost
        self.failed += len(lost)

    def places(self) -> Iterator[pins.Place]:
        """Return the loads that are under way."""
        return iter(self._loading)
