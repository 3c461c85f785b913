"""The workers there are against the workers there should be: who is started, replaced, drained, and started again after a loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from meshserve.core.processes import hash_ring
from meshserve.core.values import catalog, catalog_sync, commands, desired, events, model, reports

CALM_S = 60.0
RESTART_DELAY_S_MAX = 30.0


@dataclass(slots=True)
class WorkerRecord:
    """One worker as the mesh knows it. `is_up`: its process runs and takes steps. It is ready once it has had a whole catalog.

    `sent` and `synced` are revisions of its catalog; `whole_after`, `whole_at` those before and at the end of the last whole one.
    """

    id: str
    settings: desired.WorkerSettings
    state: reports.WorkerState = "starting"
    is_up: bool = False
    endpoint: model.Endpoint | None = None
    pid: int = 0
    restarts: int = 0
    losses: int = 0
    started_s: float = 0.0
    retry_at_s: float = 0.0
    reason: str = ""
    sent: int = 0
    synced: int = 0
    whole_after: int = 0
    whole_at: int = 0
    said: reports.WorkerReport | None = field(default=None, repr=False)
    copies: dict[model.ModelId, reports.CopyReport] = field(default_factory=dict, repr=False)

    def take_report(self, said: reports.WorkerReport | None) -> None:
        """Keep what it said last, or nothing."""
        self.said = said
        if said is None or not said.since:
            self.copies = {}
        if said is not None:
            self.copies.update((copy.id, copy) for copy in said.copies)
            for id_ in said.gone:
                self.copies.pop(id_, None)

    def see_copy(self, id_: model.ModelId, copy: reports.CopyReport | None) -> None:
        """Keep how one copy was seen, until it is reported."""
        if copy is None:
            self.copies.pop(id_, None)
        else:
            self.copies[id_] = copy


class Workers:
    """All workers by id. `changed` collects the pools whose ready workers changed since it was last emptied."""

    def __init__(self) -> None:
        self.records: dict[str, WorkerRecord] = {}
        self.changed: set[str] = set()
        self._rings: dict[str, hash_ring.HashRing] = {}
        self._ring_sizes: dict[str, int] = {}
        self._calm: tuple[tuple[desired.PoolSettings, ...], float] | None = None

    def of_pool(self, pool: str) -> list[WorkerRecord]:
        """The pool's workers, by id."""
        return [
            self.records[id_]
            for id_ in sorted(self.records)
            if self.records[id_].settings.pool == pool
        ]

    def ready(self, pool: str) -> list[str]:
        """The ids of the pool's ready workers."""
        return [worker.id for worker in self.of_pool(pool) if worker.state == "ready"]

    def is_ready(self, worker_id: str) -> bool:
        """Whether the worker is there and ready."""
        worker = self.records.get(worker_id)
        return worker is not None and worker.state == "ready"

    def home(self, pool: str, name: str) -> str | None:
        """The ready worker to which requests for `name` go, if any is ready."""
        return next(iter(self.homes(pool, name, 1)), None)

    def homes(self, pool: str, name: str, count: int) -> tuple[str, ...]:
        """The first so many ready workers from the name's place on the ring on; fewer where there are not so many."""
        ring = self._rings.get(pool)
        if ring is None:
            ring = self._rings[pool] = hash_ring.HashRing(self.ready(pool), self.ring_size(pool))
        return ring.homes(name, count)

    def ring_size(self, pool: str) -> int:
        """How many points the pool's ring has: by the workers that there should be, so that it stays when one is lost."""
        return self._ring_sizes.get(pool, hash_ring.RING_SIZE_MIN)

    def attach(self, living: events.LivingWorker, now_s: float) -> WorkerRecord:
        """Take over a worker that runs already."""
        state: reports.WorkerState = "ready" if living.is_ready else "starting"
        worker = WorkerRecord(
            living.worker_id,
            living.settings,
            state,
            True,  # noqa: FBT003
            living.endpoint,
            living.pid,
            started_s=now_s,
        )
        self.records[worker.id] = worker
        self._touch(worker)
        return worker

    def started(self, event: events.WorkerStarted) -> WorkerRecord | None:
        """The worker that is up now; nothing if nobody waits for it any more."""
        worker = self.records.get(event.worker_id)
        if worker is None or worker.state not in ("starting", "ready"):
            return None
        worker.is_up, worker.endpoint, worker.pid, worker.reason = (
            True,
            event.endpoint,
            event.pid,
            "",
        )
        worker.take_report(None)
        self._move(worker, "starting")
        worker.sent = worker.synced = worker.whole_after = worker.whole_at = 0
        return worker

    def give_whole(
        self, worker: WorkerRecord, share: catalog_sync.Parts
    ) -> Iterator[commands.Command]:
        """Bring the worker's catalog in as a whole."""
        steps = catalog_sync.full_steps(share, worker.sent)
        worker.whole_after, worker.whole_at = worker.sent, steps[-1].revision
        return self._send(worker, steps)

    def give(
        self, worker: WorkerRecord, changes: Iterable[catalog.Change]
    ) -> Iterator[commands.Command]:
        """Bring the worker's catalog forward by these changes."""
        return self._send(worker, tuple(catalog_sync.incremental_steps(changes, worker.sent)))

    def _send(
        self, worker: WorkerRecord, steps: tuple[catalog_sync.SyncStep, ...]
    ) -> Iterator[commands.Command]:
        worker.sent = steps[-1].revision if steps else worker.sent
        return (commands.SendChanges(worker.id, step) for step in steps)

    def synced(self, event: events.WorkerSynced) -> None:
        """The worker has the steps up to a revision."""
        worker = self.records.get(event.worker_id)
        if worker is not None and worker.is_up:
            worker.synced = max(worker.synced, min(event.revision, worker.sent))
            if worker.state == "starting" and worker.synced >= worker.whole_at:
                self._move(worker, "ready")

    def lost(self, event: events.WorkerLost, now_s: float) -> None:
        """The worker is gone: it is started again, the later the more often it is lost soon after its start."""
        worker = self.records.get(event.worker_id)
        if worker is None or worker.state == "lost" or event.pid not in (0, worker.pid):
            return
        if worker.state == "draining":
            self.stopped(event.worker_id)
            return
        worker.losses = 0 if now_s - worker.started_s > CALM_S else worker.losses
        delay_s = min(2.0 ** (worker.losses - 1), RESTART_DELAY_S_MAX) if worker.losses else 0.0
        worker.losses += 1
        worker.retry_at_s = now_s + delay_s
        worker.is_up, worker.pid, worker.reason = False, 0, event.reason
        worker.take_report(None)
        self._move(worker, "lost")

    def stopped(self, worker_id: str) -> None:
        """The worker has ended as it was told to."""
        worker = self.records.get(worker_id)
        if worker is not None and worker.state == "draining":
            del self.records[worker_id]
            self._touch(worker)

    def reconcile(
        self, pools: Iterable[desired.PoolSettings], now_s: float
    ) -> Iterator[commands.Command]:
        """What brings the workers nearer to what should be. Costs nothing while neither has changed and nobody is due to start again."""
        asked = tuple(pools)
        if self._calm is not None and self._calm[0] == asked and now_s < self._calm[1]:
            return
        self._calm = (asked, math.inf)
        yield from self._bring_about(asked, now_s)
        if self._calm is not None:
            retries_s = (
                worker.retry_at_s for worker in self.records.values() if worker.state == "lost"
            )
            self._calm = (asked, min(retries_s, default=math.inf))

    def _bring_about(
        self, pools: Iterable[desired.PoolSettings], now_s: float
    ) -> Iterator[commands.Command]:
        for pool in pools:
            self._size_ring(pool)
        wanted = {id_: pool.settings for pool in pools for id_ in pool.worker_ids()}
        there = list(self.records.values())
        # What is missing comes first: while it starts, nobody else of its pool may go.
        for id_ in [id_ for id_ in wanted if id_ not in self.records]:
            self.records[id_] = worker = WorkerRecord(id_, wanted[id_])
            yield from self._start(worker, now_s)
        for worker in there:
            yield from self._follow(worker, wanted.get(worker.id), now_s)

    def _size_ring(self, pool: desired.PoolSettings) -> None:
        size = hash_ring.ring_size(pool.workers)
        if size != self.ring_size(pool.name):
            self._ring_sizes[pool.name] = size
            self._rings.pop(pool.name, None)
            self.changed.add(pool.name)

    def _follow(
        self, worker: WorkerRecord, wanted: desired.WorkerSettings | None, now_s: float
    ) -> Iterator[commands.Command]:
        if worker.state == "lost":
            yield from self._follow_lost(worker, wanted, now_s)
        elif worker.state == "draining":
            return
        elif wanted is None or (worker.settings != wanted and self._may_replace(worker)):
            self._move(worker, "draining")
            yield commands.StopWorker(worker.id)

    def _follow_lost(
        self, worker: WorkerRecord, wanted: desired.WorkerSettings | None, now_s: float
    ) -> Iterator[commands.Command]:
        if wanted is None:
            del self.records[worker.id]
            self._touch(worker)
        elif now_s >= worker.retry_at_s:
            worker.settings = wanted
            worker.restarts += 1
            self._move(worker, "starting")
            yield from self._start(worker, now_s)

    def _start(self, worker: WorkerRecord, now_s: float) -> Iterator[commands.Command]:
        worker.started_s = now_s
        yield commands.StartWorker(worker.id, worker.settings)

    def _may_replace(self, worker: WorkerRecord) -> bool:
        """One at a time: while another of the pool is not there, nobody else goes."""
        others = [other for other in self.of_pool(worker.settings.pool) if other is not worker]
        return all(other.state == "ready" for other in others)

    def _move(self, worker: WorkerRecord, state: reports.WorkerState) -> None:
        if worker.state != state:
            worker.state = state
            self._touch(worker)

    def _touch(self, worker: WorkerRecord) -> None:
        self._calm = None
        self._rings.pop(worker.settings.pool, None)
        self.changed.add(worker.settings.pool)
