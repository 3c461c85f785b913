"""The whole mesh as one state machine: events come in, commands that follow from them go out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from meshserve.core.catalog import admin_requests, catalog_index
from meshserve.core.llm import llms
from meshserve.core.mesh import hot_models, pins
from meshserve.core.processes import gateways, workers
from meshserve.core.processes.reconcile import ProcessState
from meshserve.core.values import catalog, commands, desired, events, model, reports, snapshots

REMEASURED_RATIO = 1.25
"""Footprints that differ by less are one footprint, measured twice."""


class Mesh:
    """What is wanted, what runs, and the commands that lead from the one to the other.

    An admin request is answered by SaveChanges (or by no command if it changes nothing), and
    changes the mesh only once ChangesSaved has come. A refused request raises, and changes nothing.
    """

    def __init__(self) -> None:
        self._out: commands.Outbox = []
        self.catalog = catalog_index.CatalogIndex()
        self.workers = workers.Workers(self._out)
        self.gateways = gateways.Gateways(self._out)
        self.pins = pins.Pins(self.catalog, self.workers, self._out)
        self.hot_models = hot_models.HotModels(self.catalog, self.workers, self.gateways, self._out)
        self.llms = llms.Llms(self.gateways, self._out)
        self.is_draining = False
        self._nodes: tuple[str, ...] = ()
        self._controller: model.Endpoint | None = None
        self._scans: dict[model.Origin, tuple[model.ModelSpec, ...]] = {}
        # Nothing starts before the first configuration holds: without it, no pool has a size.
        self._is_unconfigured = True

    def handle(self, event: events.Event, now_s: float) -> list[commands.Command]:
        """Take in an event that happened at `now_s`, and return the commands that follow, in order.

        Raises the MeshError that refuses an admin request. If it raises anything else, commands
        that were decided before are returned by the next call.
        """
        self._take_in(event, now_s)
        self._follow(now_s)
        following = self._out[:]
        self._out.clear()
        return following

    def _take_in(self, event: events.Event, now_s: float) -> None:
        if isinstance(event, events.AdminRequest):
            self._request(event)
        elif isinstance(event, events.WorkerEvent):
            self._take_in_worker(event, now_s)
        elif isinstance(event, events.GatewayEvent):
            self._take_in_gateway(event, now_s)
        elif isinstance(event, events.LlmEvent):
            self.llms.handle(event, now_s)
        else:
            self._take_in_own(event, now_s)

    def _take_in_own(
        self,
        event: events.Restored | events.ChangesSaved | events.DrainRequested | events.Ticked,
        now_s: float,
    ) -> None:
        match event:
            case events.Restored():
                self._restore(event, now_s)
            case events.ChangesSaved():
                self._apply_saved(event.changes)
            case events.DrainRequested():
                self.is_draining = True
            case events.Ticked():
                self.hot_models.forget_quiet()
                self.pins.retry(now_s)
            case _:
                assert_never(event)

    def _take_in_worker(self, event: events.WorkerEvent, now_s: float) -> None:  # noqa: C901 - one case for each event
        match event:
            case events.WorkerStarted():
                self._worker_started(event)
            case events.WorkerSynced():
                self.workers.synced(event)
            case events.SyncFailed():
                self._sync_failed(event)
            case events.WorkerReported():
                self._worker_reported(event, now_s)
            case events.CopySeen():
                worker = self.workers.running(event.worker_id)
                if worker is not None:
                    worker.see_copy(event.id, event.copy)
            case events.WorkerLost():
                self.workers.lost(event, now_s)
                self._forget_copies(event.worker_id)
            case events.WorkerStopped():
                self.workers.stopped(event.worker_id)
                self._forget_copies(event.worker_id)
            case events.CopyEnsured():
                self._copy_ensured(event, now_s)
            case _:
                assert_never(event)

    def _take_in_gateway(self, event: events.GatewayEvent, now_s: float) -> None:
        match event:
            case events.NodesSeen():
                self._nodes = event.nodes
            case events.GatewayReported():
                self.gateways.reported(event)
            case events.GatewayConfigured():
                self.gateways.configured(event)
            case events.GatewayLost():
                self.gateways.lost(event, now_s)
            case events.GatewayStopped():
                self.gateways.stopped(event)
            case _:
                assert_never(event)

    # What follows from any event

    def _follow(self, now_s: float) -> None:
        if self._is_unconfigured:
            return
        self.gateways.reconcile(() if self.is_draining else self._nodes, now_s)
        # Workers end after the gateways, which have requests for them until they have drained.
        if not self.is_draining or not self.gateways.records:
            self._follow_workers(now_s)
        self.llms.reconcile(() if self.is_draining else self.catalog.desired.llms, now_s)

    def _follow_workers(self, now_s: float) -> None:
        # Gateways learn of a lost worker before it is started again, which takes much longer.
        self._follow_changed_pools()
        self.workers.reconcile(() if self.is_draining else self.catalog.desired.pools, now_s)
        self._follow_changed_pools()
        self.pins.follow_moving()

    def _follow_changed_pools(self) -> None:
        changed, self.workers.changed = self.workers.changed, set()
        if changed:
            self.gateways.configure()
            self.gateways.needed = self.gateways.revision
        for pool in sorted(changed):
            self.pins.follow_pool(pool)
            self.hot_models.follow_pool(pool)

    # Admin requests and the catalog

    def _request(self, request: events.AdminRequest) -> None:
        save = admin_requests.decide(self.catalog, request, self._scans)
        if isinstance(request, events.ConfigApplied) and not save.changes:
            self._is_unconfigured = False
        elif isinstance(request, events.RepositoryScanned):
            self._scans[request.origin] = request.specs
        self._save(save)

    def _save(self, save: commands.SaveChanges) -> None:
        if save.changes or save.words:
            self._out.append(save)

    def _restore(self, event: events.Restored, now_s: float) -> None:
        self._controller = event.controller
        for change in event.changes:
            self.catalog.apply(change)
        for living in event.workers:
            worker = self.workers.attach(living, now_s)
            self.workers.send_full(worker, self.catalog.parts(worker.settings.pool))
        for replica in event.replicas:
            self.llms.attach(replica, now_s)
        self._is_unconfigured = event.is_config_coming
        pinned = {declared.spec.id.name for declared in self.catalog.models if declared.spec.pinned}
        for name in sorted(pinned):
            self.pins.follow_name(name, ())

    def _apply_saved(self, changes: tuple[events.RegistryChange, ...]) -> None:
        self._is_unconfigured = False
        names = self.catalog.affected_names(changes)
        aliases = {
            change.alias
            for change in changes
            if isinstance(change, desired.DesiredAlias | catalog.AliasCleared)
        }
        routed = names.keys() | aliases
        before = (self.catalog.desired.gateway, self.catalog.routes_of(routed))
        self._send_to_pools(
            pool_change for change in changes for pool_change in self.catalog.apply(change)
        )
        if before != (self.catalog.desired.gateway, self.catalog.routes_of(routed)):
            self.gateways.configure()
        self.hot_models.forget_names(names)
        for name, declared in names.items():
            self.pins.follow_name(name, declared)

    def _send_to_pools(self, pool_changes: Iterable[catalog_index.PoolChange]) -> None:
        by_pool: dict[str, list[catalog.Change]] = {}
        for pool_change in pool_changes:
            by_pool.setdefault(pool_change.pool, []).append(pool_change.change)
        for pool, changes in by_pool.items():
            for worker in self.workers.of_pool(pool):
                if worker.is_up:
                    self.workers.send(worker, changes)

    # Workers

    def _worker_started(self, event: events.WorkerStarted) -> None:
        worker = self.workers.started(event)
        if worker is not None:
            self._forget_copies(worker.id)
            self.workers.send_full(worker, self.catalog.parts(worker.settings.pool))
        elif event.worker_id not in self.workers.records:
            self._out.append(commands.StopWorker(event.worker_id))

    def _sync_failed(self, event: events.SyncFailed) -> None:
        worker = self.workers.running(event.worker_id)
        # After a missed step every later one fails too: the first failure brings a full catalog.
        if worker is not None and event.revision > worker.full_after:
            self.workers.send_full(worker, self.catalog.parts(worker.settings.pool))

    def _worker_reported(self, event: events.WorkerReported, now_s: float) -> None:
        worker = self.workers.running(event.report.worker_id)
        if worker is None:
            return
        worker.take_report(event.report)
        # It has an older catalog than when the report was asked for: its process was replaced.
        if event.report.revision < event.revision and worker.full_after < event.revision:
            self.workers.send_full(worker, self.catalog.parts(worker.settings.pool))
        self._learn(event.report.measured)
        if not self.is_draining:
            self.hot_models.worker_reported(worker.id, event.report.demands, now_s)

    def _learn(self, measurements: Iterable[reports.LearnedMeasurement]) -> None:
        learned = []
        pool_changes: list[catalog_index.PoolChange] = []
        for measurement in measurements:
            declared = self.catalog.models.declared(measurement.id)
            if declared is not None and _is_news(declared.measured, measurement.measured):
                learned.append(measurement)
                changed = catalog.ModelDeclared(declared.spec, measurement.measured)
                pool_changes += self.catalog.apply(changed)
        if learned:
            self._send_to_pools(pool_changes)
            self._out.append(commands.RememberMeasured(tuple(learned)))

    def _forget_copies(self, worker_id: str) -> None:
        self.pins.forget_worker(worker_id)
        self.hot_models.forget_worker(worker_id)

    def _copy_ensured(self, event: events.CopyEnsured, now_s: float) -> None:
        self.hot_models.copy_ensured(event, now_s)
        waiting = self.pins.copy_ensured(event, now_s)
        if not waiting:
            return
        # One alias at a time: moving the first may withdraw the model that the next ones mean.
        self.pins.load_again(waiting[1:])
        self._save(
            admin_requests.fail_move(self.catalog, waiting[0], event.failure)
            if event.failure
            else admin_requests.finish_move(self.catalog, waiting[0])
        )

    # Reading

    @property
    def is_drained(self) -> bool:
        """Whether everything has ended after a DrainRequested."""
        return (
            self.is_draining
            and not (self.gateways.records or self.workers.records)
            and self.llms.is_empty
        )

    def gateway_snapshot(self, node: str) -> snapshots.GatewaySnapshot:
        """Return what the node's gateway is to be configured from, as of now."""
        wanted = self.catalog.desired
        return snapshots.GatewaySnapshot(
            listen=wanted.gateway.listen,
            node=node,
            pools={pool.name: self._members(pool.name) for pool in wanted.pools},
            default_pool=desired.DEFAULT_POOL,
            routes=dict(self.catalog.routes),
            controller=self._controller,
            request_bytes_max=wanted.gateway.request_bytes_max,
            keys=wanted.gateway.keys,
            revision=self.gateways.revision,
            ring_sizes={pool.name: self.workers.ring_size(pool.name) for pool in wanted.pools},
            llms=self.llms.routes(),
            hot=self.hot_models.routes(),
        )

    def _members(self, pool: str) -> tuple[snapshots.RingMember, ...]:
        return tuple(
            snapshots.RingMember(worker.id, worker.endpoint, worker.state is ProcessState.READY)
            for worker in self.workers.of_pool(pool)
            if worker.endpoint
        )

    def home(self, name: str) -> str | None:
        """Return the ready worker that gets the requests for a model or alias, or None."""
        pool = self.catalog.pool_of(name)
        return self.workers.home(pool, name) if pool else None

    def check(self) -> None:
        """Assert what holds after every event."""
        self.catalog.check()
        self.llms.check()
        self.hot_models.check()
        if not (self.is_draining or self._is_unconfigured):
            self.pins.check()
        for worker in self.workers.records.values():
            assert worker.synced <= worker.sent
            assert worker.state is not ProcessState.READY or (worker.is_up and worker.endpoint)


def _is_news(known: model.Measured | None, new: model.Measured) -> bool:
    return (
        known is None or known.digest != new.digest or is_remeasured(known.footprint, new.footprint)
    )


def is_remeasured(known: model.Footprint, new: model.Footprint) -> bool:
    """Return whether a footprint differs from the known one by more than two measurements do."""
    pairs = zip(known, new, strict=True)
    return any(max(pair) > REMEASURED_RATIO * min(pair) for pair in pairs)
