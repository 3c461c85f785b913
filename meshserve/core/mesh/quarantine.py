"""Tell all workers of copies that may end processes, and keep those that did in quarantine."""

from __future__ import annotations

import collections

from meshserve.core.catalog import admin_requests, catalog_index, quarantine_requests
from meshserve.core.processes import workers
from meshserve.core.values import containment, reports

DEATHS_MAX = 1000
"""Deaths that are remembered, so that each counts once however many workers tell of it."""


class Quarantine:
    """The suspicions of the whole mesh, from what workers report.

    Workers of the node on which a worker died know its suspects at once, by its journal; those of
    other nodes know them by what is sent here. Only quarantines are saved: suspicions come again
    with the next reports.
    """

    def __init__(
        self,
        index: catalog_index.CatalogIndex,
        workers_: workers.Workers,
        queue: admin_requests.AdminQueue,
    ) -> None:
        self._index = index
        self._workers = workers_
        self._queue = queue
        self._deaths: collections.deque[tuple[str, int]] = collections.deque(maxlen=DEATHS_MAX)
        # What else was found of copies, by the worker's process: the key, how often, and what.
        self._noticed: collections.deque[tuple[str, int, tuple[str, int, str]]] = collections.deque(
            maxlen=DEATHS_MAX
        )
        self._counts: collections.Counter[str] = collections.Counter()

    def take_report(self, report: reports.WorkerReport) -> None:
        """Take in what a worker has reported of deaths, trials, and runs that take too much."""
        for death in report.deaths:
            if (death.worker_id, death.pid) not in self._deaths:
                self._deaths.append((death.worker_id, death.pid))
                self._suspect_all(death)
        counted = [(hung.key, hung.total, "hung") for hung in report.hung]
        # Not the first time: it may be another copy's memory that ran at the same moment.
        counted += [(hog.key, hog.times, "hog") for hog in report.hogs if hog.is_suspect]
        for finding in counted:
            seen = (report.worker_id, report.pid, finding)
            if seen not in self._noticed:
                self._noticed.append(seen)
                self._suspect(finding[0])
        for trial in report.trials:
            if trial.reason:
                convicted = quarantine_requests.CopyConvicted(trial.key, trial.id, trial.reason)
                self._queue.add(convicted)
            else:
                self._workers.send_changes(self._index.acquit(trial.key))
        for stop in report.join_stops:
            self._workers.send_changes(self._index.stop_joining(stop))

    def _suspect_all(self, death: containment.WorkerDeath) -> None:
        """Suspect what ran in the death, which explains it if one of these is a new suspect.

        A copy explains one death only: if workers die again beside a copy that was acquitted, the
        cause is another one, and the pauses between starts must grow.
        """
        free = [key for key in death.keys if key not in self._index.models.quarantines]
        if any(not self._counts[key] for key in free):
            self._workers.explain(death.worker_id, death.pid)
        for key in free:
            self._suspect(key)

    def _suspect(self, key: str) -> None:
        """Have the copy run alone, each time for longer."""
        self._counts[key] += 1
        probation_s = containment.PROBATION.wait_s(self._counts[key])
        self._workers.send_changes(self._index.suspect(key, probation_s))
