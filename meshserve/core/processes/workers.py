"""The workers: which run, which catalog steps each has, and which one is a model's home."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from meshserve.core import backoff
from meshserve.core.processes import hash_ring, reconcile
from meshserve.core.processes.reconcile import ProcessMove, ProcessState
from meshserve.core.values import (
    catalog,
    catalog_sync,
    commands,
    desired,
    events,
    model,
    reports,
    snapshots,
)

HUNG_SHARE = 1 / 16
"""Part of a worker's threads which, lost to runs that hang, is a reason to replace it at once."""

AILING_S = 60.0
"""How long a run may hang, or memory be over the budget, until the worker is replaced, if another
one answers meanwhile: a thread that loops takes time from all others."""

BACKOFF = backoff.BackoffPolicy(base_s=1.0, cap_s=30.0, calm_s=60.0, is_first_immediate=True)


@dataclass(slots=True)
class WorkerRecord(reconcile.ProcessRecord[desired.WorkerSettings]):
    """One worker. It is ready once a full catalog has arrived.

    `is_up`: its process runs and takes catalog steps.
    `sent` is the catalog revision last sent to it, `synced` the last one it has applied. The last
    full catalog was sent as the steps after revision `full_after`; from `full_at` on it may serve.
    """

    is_up: bool = False
    endpoint: model.Endpoint | None = None
    pid: int = 0
    sent: int = 0
    synced: int = 0
    full_after: int = 0
    full_at: int = 0
    report: reports.WorkerReport | None = field(default=None, repr=False)
    copies: dict[model.ModelId, reports.CopyReport] = field(default_factory=dict, repr=False)
    # Requests of models that have left its memory.
    answered: dict[model.ModelId, int] = field(default_factory=dict, repr=False)
    # The number of the last event of its process that was reported.
    last_event: int = 0

    def take_report(self, report: reports.WorkerReport) -> None:
        """Keep the newest report, and update `copies` by it."""
        self.report = report
        # A report that builds on no earlier one has all copies.
        if not report.since:
            self.copies, self.answered = {}, {}
        for copy in report.copies:
            self.take_copy(copy.id, copy)
        for id_ in report.gone:
            self.take_copy(id_, None)

    def take_copy(self, id_: model.ModelId, copy: reports.CopyReport | None) -> None:
        """Keep the worker's copy of the model, of an absent one only how many requests it had."""
        self.copies.pop(id_, None)
        self.answered.pop(id_, None)
        if copy is not None and copy.state == "absent":
            self.answered[id_] = copy.requests
        elif copy is not None:
            self.copies[id_] = copy._replace(details=None) if copy.details else copy

    def forget_reports(self) -> None:
        """Drop what an earlier process has reported."""
        self.report, self.copies, self.answered, self.last_event = None, {}, {}, 0


class Workers(
    reconcile.Reconciler[WorkerRecord, desired.WorkerSettings, desired.PoolSettings],
):
    """All workers by id.

    `changed` collects the pools whose ready workers may have changed; the mesh empties it. No
    worker is started on the nodes `avoided`.
    """

    def __init__(self, out: commands.Outbox) -> None:
        super().__init__(out)
        self.changed: set[str] = set()
        self.avoided: frozenset[str] = frozenset()
        self._rings: dict[str, hash_ring.HashRing] = {}
        # The last process of each worker whose death is explained, by the worker's id.
        self._explained: dict[str, int] = {}

    # Reading

    def of_pool(self, pool: str) -> list[WorkerRecord]:
        """Return the pool's workers, by id."""
        return [
            self.records[id_]
            for id_ in sorted(self.records)
            if self.records[id_].settings.pool == pool
        ]

    def ready(self, pool: str) -> list[str]:
        """Return the ids of the pool's ready workers."""
        return [worker.id for worker in self.of_pool(pool) if worker.state is ProcessState.READY]

    def members(self, pool: str) -> tuple[snapshots.RingMember, ...]:
        """Return the pool's workers that have an address, as gateways see them."""
        return tuple(
            snapshots.RingMember(worker.id, worker.endpoint, worker.state is ProcessState.READY)
            for worker in self.of_pool(pool)
            if worker.endpoint
        )

    def has_ready(self, pool: str) -> bool:
        """Return whether one of the pool's workers is ready."""
        return any(
            worker.state is ProcessState.READY and worker.settings.pool == pool
            for worker in self.records.values()
        )

    def is_ready(self, worker_id: str) -> bool:
        """Return whether a worker of that id exists and is ready."""
        worker = self.records.get(worker_id)
        return worker is not None and worker.state is ProcessState.READY

    def running(self, worker_id: str) -> WorkerRecord | None:
        """Return the worker if its process runs and takes catalog steps."""
        worker = self.records.get(worker_id)
        return worker if worker is not None and worker.is_up else None

    def home(self, pool: str, name: str) -> str | None:
        """Return the ready worker that gets the requests for `name`, None if none is ready."""
        return next(iter(self.homes(pool, name, 1)), None)

    def homes(self, pool: str, name: str, count: int) -> tuple[str, ...]:
        """Return the first `count` ready workers on the ring from the name's point on, or fewer."""
        ring = self._rings.get(pool)  # built when asked for: many changes at once cost one
        if ring is None:
            ring = self._rings[pool] = hash_ring.HashRing(self.ready(pool))
        return ring.homes(name, count)

    # Events

    def attach(self, living: events.LivingWorker, now_s: float) -> WorkerRecord:
        """Take over a worker that an earlier controller has started."""
        worker = self._new_record(living.worker_id, living.settings)
        worker.state = ProcessState.READY if living.is_ready else ProcessState.STARTING
        worker.is_up, worker.started_s = True, now_s
        worker.endpoint, worker.pid = living.endpoint, living.pid
        self.records[worker.id] = worker
        self._changed(worker)
        self._out.append(commands.Watch("worker", worker.id, worker.pid))
        return worker

    def started(self, event: events.WorkerStarted) -> WorkerRecord | None:
        """Note a worker's new process and return the worker, None if it is not wanted any more."""
        worker = self.records.get(event.worker_id)
        if worker is None or worker.state not in reconcile.RUNNING:
            return None
        worker.is_up, worker.endpoint, worker.pid = True, event.endpoint, event.pid
        worker.reason = ""
        worker.forget_reports()
        if worker.state is ProcessState.READY:
            self._move(worker, ProcessMove.RESTARTED)
        # Revisions count within one process: a new one begins with an empty catalog.
        worker.sent = worker.synced = worker.full_after = worker.full_at = 0
        self._out.append(commands.Watch("worker", worker.id, worker.pid))
        return worker

    def synced(self, event: events.WorkerSynced) -> None:
        """Note the worker's catalog revision; with its full catalog the worker becomes ready."""
        worker = self.running(event.worker_id)
        if worker is None:
            return
        # A late answer of the worker's former process may have a higher revision than any sent.
        worker.synced = max(worker.synced, min(event.revision, worker.sent))
        if worker.state is ProcessState.STARTING and worker.synced >= worker.full_at:
            self._move(worker, ProcessMove.SERVING)

    def lost(self, event: events.WorkerLost, now_s: float) -> None:
        """Mark a worker lost; reconcile starts it again after its back-off.

        The loss of an earlier process of the same worker changes nothing.
        """
        worker = self.records.get(event.worker_id)
        if (
            worker is not None
            and worker.state is not ProcessState.LOST
            and event.pid in (0, worker.pid)  # two tasks tell of an end, one perhaps too late
        ):
            worker.is_up, worker.pid = False, 0
            worker.forget_reports()
            # A draining worker keeps its commands: StopWorker also cleans up after the process.
            if worker.state is not ProcessState.DRAINING:
                self._out.append(commands.AbandonWorker(worker.id))
            self._out.append(commands.Unwatch("worker", worker.id, worker.loss(event.reason)))
            self._lose(worker, event.reason, now_s)
            if event.pid and self._explained.get(worker.id) == event.pid:
                worker.backoff.forgive()

    def explain(self, worker_id: str, pid: int) -> None:
        """Let the death of this process not lengthen the worker's pause before its next start.

        A copy is suspected of it, which no worker will run again before it was tried alone. This
        may come before or after the loss.
        """
        worker = self.records.get(worker_id)
        if worker is None or self._explained.get(worker_id) == pid:
            return
        self._explained[worker_id] = pid
        if worker.pid != pid and worker.backoff.failures:  # its loss was noticed before
            worker.backoff.forgive()
            self._settled = None

    def replace_if_ailing(self, worker: WorkerRecord) -> None:
        """Stop a ready worker that has lost threads or memory to models; it is started again.

        It finishes its requests first, except for those that hang. All others of its pool must be
        ready. One that is alone is replaced only when its threads run out.
        """
        report = worker.report
        if report is None or worker.state is not ProcessState.READY:
            return
        has_others = len(self.of_pool(worker.settings.pool)) > 1
        reason = _ailment(report, is_patient=not has_others)
        if reason and self._may_replace(worker):
            self.stop(worker, f"it is replaced: {reason}")

    def stop(self, worker: WorkerRecord, reason: str) -> None:
        """Take a running worker out of the route, and have it end after its requests.

        It is started anew where it is still wanted. `reason` goes to the log.
        """
        worker.reason = reason
        self._move(worker, ProcessMove.STOP_ORDERED)
        self._order_stop(worker)

    def stopped(self, worker_id: str) -> None:
        """Forget a worker that has drained and ended."""
        worker = self.records.get(worker_id)
        if worker is not None and worker.state is ProcessState.DRAINING:
            self._out.append(commands.Unwatch("worker", worker.id))
            self._remove(worker, ProcessMove.STOPPED)

    def see_copy(self, worker_id: str, id_: model.ModelId, copy: reports.CopyReport | None) -> None:
        """Keep the worker's copy of the model (None: it has none) until the next report."""
        worker = self.running(worker_id)
        if worker is not None:
            worker.take_copy(id_, copy)

    def check(self) -> None:
        """Assert that no worker has more than was sent, and that ready ones can be reached."""
        for worker in self.records.values():
            assert worker.synced <= worker.sent
            assert worker.state is not ProcessState.READY or (worker.is_up and worker.endpoint)

    # Catalogs

    def send_full(self, worker: WorkerRecord, parts: catalog_sync.Parts) -> None:
        """Send the worker a full catalog, in place of the one that it has."""
        steps = catalog_sync.full_steps(parts, worker.sent)
        worker.full_after, worker.full_at = worker.sent, steps[-1].revision
        self._send(worker, steps)

    def send_changes(self, by_pool: Mapping[str, Sequence[catalog.Change]]) -> None:
        """Send the workers of each pool the changes of their catalog."""
        for pool, changes in by_pool.items():
            parts = catalog_sync.split_changes(changes)  # once: all workers of a pool share them
            for worker in self.of_pool(pool):
                if worker.is_up:
                    self._send(worker, catalog_sync.incremental_steps(parts, worker.sent))
                if worker.state is ProcessState.STARTING:
                    # Out of the route nobody waits for it, so these changes may be acknowledged
                    # before it has them: it serves with them, or not yet.
                    worker.full_at = worker.sent

    def _send(self, worker: WorkerRecord, steps: Iterable[catalog_sync.SyncStep]) -> None:
        for step in steps:
            worker.sent = step.revision
            self._out.append(commands.SendChanges(worker.id, step))

    # Reconciling

    def _settings_by_id(
        self, wanted: tuple[desired.PoolSettings, ...]
    ) -> dict[str, desired.WorkerSettings]:
        return {id_: pool.settings for pool in wanted for id_ in pool.worker_ids()}

    def _new_record(self, id_: str, settings: desired.WorkerSettings) -> WorkerRecord:
        return WorkerRecord(id_, settings, backoff.Backoff(BACKOFF))

    def _order_start(self, record: WorkerRecord) -> None:
        self._out.append(commands.StartWorker(record.id, record.settings, self.avoided))

    def _order_stop(self, record: WorkerRecord) -> None:
        self._out.append(commands.StopWorker(record.id, record.reason))

    def _may_replace(self, record: WorkerRecord) -> bool:
        # One worker at a time: a pool that restarts all at once could answer nothing meanwhile.
        others = (other for other in self.of_pool(record.settings.pool) if other is not record)
        return all(other.state is ProcessState.READY for other in others)

    def _on_change(self, record: WorkerRecord) -> None:
        self._rings.pop(record.settings.pool, None)
        self.changed.add(record.settings.pool)


def _ailment(report: reports.WorkerReport, *, is_patient: bool) -> str:
    """Return why the worker should be replaced, empty if it should not be.

    With `is_patient` only a loss counts that stops it soon.
    """
    is_short = report.hung_runs >= HUNG_SHARE * report.run_threads
    is_old = not is_patient and any(copy.oldest_s >= AILING_S for copy in report.hung)
    if report.hung and (is_short or is_old):
        names = _names(id_ for copy in report.hung for id_ in copy.ids)
        return (
            f"{report.hung_runs} of its {report.run_threads} threads are lost to runs that do not "
            f"end, of {names}"
        )
    if report.hogs and not is_patient and report.excess_s >= AILING_S:
        names = _names(id_ for hog in report.hogs for id_ in hog.ids)
        return f"it takes far more memory than its budget since it ran {names}"
    return ""


def _names(ids: Iterable[model.ModelId]) -> str:
    return ", ".join(sorted(set(map(str, ids))))
