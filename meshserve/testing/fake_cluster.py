"""A cluster in memory, whose workers load, pin and report like real ones.

Tests choose which calls fail.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

from meshserve import errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import (
    catalog,
    catalog_sync,
    containment,
    desired,
    events,
    model,
    model_stats,
    nodes,
    reports,
    snapshots,
)
from meshserve.testing import fake_replicas

SIZE = model.Footprint(1000)


class FakeWorker:
    """One worker's process: its catalog, its copies, its pins."""

    def __init__(
        self, worker_id: str, settings: desired.WorkerSettings, pid: int, node: str
    ) -> None:
        self.id = worker_id
        self.settings = settings
        self.pid = pid
        self.endpoint = model.Endpoint(node, "127.0.0.1", 10_000 + pid, f"/run/{worker_id}.sock")
        self.follower = catalog_sync.CatalogFollower()
        self.copies: dict[model.ModelId, reports.CopyReport] = {}
        self.pins: set[model.ModelId] = set()
        self.stats: dict[model.ModelId, model_stats.ModelStats] = {}
        self.learned: list[reports.LearnedMeasurement] = []
        self.reported: dict[model.ModelId, reports.CopyReport] = {}
        self.reports = 0
        self.page_copies = 500
        self.counters = reports.Counters()
        self.deaths: tuple[containment.WorkerDeath, ...] = ()
        self.trials: tuple[containment.TrialEnded, ...] = ()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def take(self, step: catalog_sync.SyncStep) -> None:
        """Apply a catalog step, and drop the copies of changed models. Raises MissedStep."""
        for change in self.follower.apply(step):
            match change:
                case catalog.ModelDeclared(spec=spec):
                    self.copies.pop(spec.id, None)
                case catalog.ModelWithdrawn(id=id_):
                    self.copies.pop(id_, None)
                    self.pins.discard(id_)

    def load(self, id_: model.ModelId, failure: str) -> None:
        """Load a copy at once. Raises LoadFailed with `failure`, ModelNotFound."""
        declared = self.follower.catalog.declared(id_)
        if declared is None:
            raise errors.ModelNotFound(f"model {str(id_)!r} is not registered")
        if failure:
            self.copies[id_] = reports.CopyReport(id_, "failed", failure)
            self.counters = self.counters._replace(load_failures=self.counters.load_failures + 1)
            raise errors.LoadFailed(failure)
        if id_ not in self.copies:
            # Equal URIs stand for equal content.
            self.learned.append(
                reports.LearnedMeasurement(
                    id_, model.Measured(f"sha256:{declared.spec.uri}", SIZE, 0.1)
                )
            )
            self.counters = self.counters._replace(loads=self.counters.loads + 1)
        self.copies[id_] = reports.CopyReport(id_, "ready", "", SIZE)

    def copies_of(self, ids: tuple[model.ModelId, ...]) -> tuple[reports.CopyReport, ...]:
        """Return the worker's copies of these models, without those that it does not have."""
        return tuple(
            self.copies[id_]._replace(pinned=id_ in self.pins) for id_ in ids if id_ in self.copies
        )

    def report(self, since: int) -> reports.WorkerReport:
        """Return a report with what has changed since the report `since`."""
        # Like a real worker: a report that got lost brings all copies again.
        base = since if since == self.reports else 0
        known = self.reported if base else {}
        copies = self.copies_of(tuple(self.copies))
        changed = [copy for copy in copies if known.get(copy.id) != copy]
        page = tuple(changed[: self.page_copies])
        gone = tuple(id_ for id_ in known if id_ not in self.copies)
        kept = {id_: copy for id_, copy in known.items() if id_ in self.copies}
        # Only what this page tells counts as reported: the rest comes with the next one.
        self.reported = kept | {copy.id: copy for copy in page}
        self.reports += 1
        learned, self.learned = tuple(self.learned), []
        return reports.WorkerReport(
            worker_id=self.id,
            pid=self.pid,
            node=self.endpoint.node,
            state="ready" if self.follower.is_complete else "starting",
            revision=self.follower.revision,
            budget=self.settings.memory,
            booked=model.Footprint(sum(copy.footprint.host_bytes for copy in copies)),
            counters=self.counters,
            number=self.reports,
            since=base,
            copies=page,
            gone=gone,
            has_more=len(page) < len(changed),
            measured=learned,
            deaths=self.deaths,
            trials=self.trials,
        )


class FakeCluster(fake_replicas.FakeReplicas):
    """Implements `cluster_control.Cluster`.

    `failing_starts`, `failing_configures` and `lost_steps` say how many of the next calls fail, by
    worker or node; `failing_loads` has the reasons by model name. `calls` records calls in words.
    """

    def __init__(
        self,
        node_names: tuple[str, ...] = ("n1",),
        capacity: cluster_control.WorkerCapacity | None = None,
    ) -> None:
        self.workers: dict[str, FakeWorker] = {}
        self.gateways: dict[str, snapshots.GatewaySnapshot] = {}
        self.gateway_ends: dict[str, asyncio.Future[str]] = {}
        self.node_names = node_names
        self.failing_starts: Counter[str] = Counter()
        self.failing_loads: dict[str, str] = {}
        self.failing_configures: Counter[str] = Counter()
        self.lost_steps: Counter[str] = Counter()
        self.calls: list[str] = []
        super().__init__(self.calls)
        self._capacity = capacity or cluster_control.WorkerCapacity(2, 0)
        self._pids = itertools.count(1)

    def kill(self, worker_id: str, reason: str = "it was killed") -> None:
        """End a worker's process as SIGKILL does."""
        worker = self.workers.pop(worker_id)
        if not worker.ended.done():
            worker.ended.set_result(reason)

    async def capacity(self) -> cluster_control.WorkerCapacity:
        """Return the capacity given to the constructor."""
        return self._capacity

    async def nodes(self) -> tuple[nodes.ClusterNode, ...]:
        """Return the nodes called `node_names`; the first is the head."""
        numbered = enumerate(self.node_names)
        return tuple(nodes.ClusterNode(name, is_head=not number) for number, name in numbered)

    async def end_node(self, node: str) -> None:
        """Take the node out of `node_names`."""
        self.calls.append(f"end {node}")
        self.node_names = tuple(name for name in self.node_names if name != node)

    async def living_workers(self) -> tuple[events.LivingWorker, ...]:
        """Return the workers that run."""
        return tuple(
            events.LivingWorker(
                worker.id, worker.settings, worker.endpoint, worker.pid, worker.follower.is_complete
            )
            for worker in self.workers.values()
        )

    async def start_worker(
        self,
        worker_id: str,
        settings: desired.WorkerSettings,
        avoided: frozenset[str] = frozenset(),
    ) -> events.WorkerStarted:
        """Start a worker on a node. Raises Unavailable as `failing_starts` says, or without one."""
        self.calls.append(f"start {worker_id}")
        if worker_id in self.workers:
            self.kill(worker_id)
        if self.failing_starts[worker_id] > 0:
            self.failing_starts[worker_id] -= 1
            raise errors.Unavailable(f"{worker_id} can't be started")
        node = next((name for name in self.node_names if name not in avoided), "")
        if not node:
            raise errors.Unavailable("all nodes are being drained")
        worker = FakeWorker(worker_id, settings, next(self._pids), node)
        self.workers[worker_id] = worker
        return events.WorkerStarted(worker_id, worker.endpoint, worker.pid)

    async def stop_worker(self, worker_id: str) -> None:
        """End a worker."""
        self.calls.append(f"stop {worker_id}")
        if worker_id in self.workers:
            self.kill(worker_id, "it was stopped")

    async def wait_until_lost(self, worker_id: str) -> str:
        """Return the reason once the worker has ended."""
        worker = self.workers.get(worker_id)
        # Shielded, because a watcher that is cancelled must not cancel the end for the others.
        return await asyncio.shield(worker.ended) if worker else "there is none"

    async def send_changes(self, worker_id: str, step: catalog_sync.SyncStep) -> None:
        """Apply the step, or lose it while `lost_steps` counts losses for the worker."""
        worker = self._worker(worker_id)
        if self.lost_steps[worker_id] > 0:
            # Without an error, so that only the next step shows that one is missing.
            self.lost_steps[worker_id] -= 1
            return
        worker.take(step)

    async def ensure_loaded(self, worker_id: str, id_: model.ModelId, timeout_s: float) -> None:
        """Load a copy at once. Raises DeadlineExceeded if `timeout_s` is not positive."""
        self.calls.append(f"load {id_} on {worker_id}")
        if timeout_s <= 0:
            raise errors.DeadlineExceeded("no time to load")
        self._worker(worker_id).load(id_, self.failing_loads.get(id_.name, ""))

    async def unload(self, worker_id: str, id_: model.ModelId) -> None:
        """Drop the copy."""
        self.calls.append(f"unload {id_} on {worker_id}")
        self._worker(worker_id).copies.pop(id_, None)

    async def pin(self, worker_id: str, id_: model.ModelId, *, is_pinned: bool) -> None:
        """Pin or unpin the model."""
        pins = self._worker(worker_id).pins
        if is_pinned:
            pins.add(id_)
        else:
            pins.discard(id_)

    async def copies(
        self, worker_id: str, ids: tuple[model.ModelId, ...]
    ) -> tuple[reports.CopyReport, ...]:
        """Return the worker's copies of these models."""
        return self._worker(worker_id).copies_of(ids)

    async def stats(self, worker_id: str) -> dict[model.ModelId, model_stats.ModelStats]:
        """Return what a test has put into `stats`."""
        return self._worker(worker_id).stats

    def _worker(self, worker_id: str) -> FakeWorker:
        worker = self.workers.get(worker_id)
        if worker is None:
            raise errors.Unavailable(f"there is no worker {worker_id}")
        return worker

    async def start_gateway(
        self, node: str, snapshot: snapshots.GatewaySnapshot
    ) -> reports.GatewayReport:
        """Start a gateway, or configure the one that already runs."""
        self.calls.append(f"start gateway {node}")
        self.gateways[node] = snapshot
        return await self.gateway_report(node)

    async def configure_gateway(self, node: str, snapshot: snapshots.GatewaySnapshot) -> None:
        """Keep the snapshot. Raises MeshError while `failing_configures` counts failures."""
        # Raises without a gateway, because nothing is there to configure.
        await self.gateway_report(node)
        if self.failing_configures[node] > 0:
            self.failing_configures[node] -= 1
            raise errors.MeshError("Envoy did not take it")
        self.gateways[node] = snapshot

    async def stop_gateway(self, node: str) -> None:
        """End a gateway."""
        self.calls.append(f"stop gateway {node}")
        self.kill_gateway(node, "it was stopped")

    def kill_gateway(self, node: str, reason: str = "it was killed") -> None:
        """End a gateway's process as SIGKILL does."""
        self.gateways.pop(node, None)
        ended = self.gateway_ends.pop(node, None)
        if ended is not None and not ended.done():
            ended.set_result(reason)

    async def wait_until_gateway_lost(self, node: str) -> str:
        """Return the reason once the gateway has ended."""
        if node not in self.gateways:
            return "there is none"
        future = asyncio.get_running_loop().create_future
        return await asyncio.shield(self.gateway_ends.setdefault(node, future()))

    async def gateway_report(self, node: str) -> reports.GatewayReport:
        """Return the gateway's report. Raises Unavailable without a gateway."""
        if node not in self.gateways:
            raise errors.Unavailable(f"there is no gateway on {node}")
        return reports.GatewayReport(node, 1, 2, "ready", self.gateways[node].listen)

    async def report(self, worker_id: str, since: int) -> reports.WorkerReport:
        """Return a report with what has changed since the report `since`."""
        return self._worker(worker_id).report(since)
