"""The whole mesh as one state machine: events go in, and the commands that they cause come out."""

from __future__ import annotations

from types import MappingProxyType
from typing import assert_never

from meshserve.core.catalog import admin_requests, alias_requests, catalog_index
from meshserve.core.llm import llms
from meshserve.core.mesh import (
    copy_requests,
    hot_models,
    mesh_history,
    mesh_view,
    model_totals,
    node_drains,
    node_views,
    pins,
    pool_holds,
    pool_sizes,
    quarantine,
)
from meshserve.core.processes import gateways, workers
from meshserve.core.values import (
    catalog,
    commands,
    desired,
    events,
    gateway_events,
    llm_events,
    model,
    registry_contents,
    reports,
    snapshots,
)


class Mesh:
    """The desired state, the running processes, and the commands that bring them together.

    Every ticketed request is answered once, by Acknowledge or Refuse. An admin request changes the
    mesh only once its changes are saved.
    """

    def __init__(self) -> None:
        self._out: commands.Outbox = []
        self.catalog = catalog_index.CatalogIndex()
        self.workers = workers.Workers(self._out)
        self.gateways = gateways.Gateways(self._out)
        self.pins = pins.Pins(self.catalog, self.workers, self._out)
        self.hot_models = hot_models.HotModels(self.catalog, self.workers, self.gateways, self._out)
        self.pool_sizes = pool_sizes.PoolSizes(self.workers, self.hot_models, self.pins)
        self.pool_holds = pool_holds.PoolHolds(
            self.catalog, self.workers, self.gateways, self.pool_sizes, self._out
        )
        self.llms = llms.Llms(self.gateways, self._out)
        self.drains = node_drains.NodeDrains(
            self.catalog, self.workers, self.gateways, self.llms.fleet, self._out
        )
        self.admin_queue = admin_requests.AdminQueue(self.catalog, self._out)
        self.copy_requests = copy_requests.CopyRequests(self.catalog, self.workers, self._out)
        self._quarantine = quarantine.Quarantine(self.catalog, self.workers, self.admin_queue)
        self.history = mesh_history.MeshHistory(
            self.workers, self.hot_models, self.pool_sizes, self.llms.fleet
        )
        self.totals = model_totals.ModelTotals(self.catalog)
        self.is_draining = False
        self._controller: model.Endpoint | None = None
        self._is_restored = False
        self._is_config_coming = False
        self._view: mesh_view.MeshView | None = None

    def handle(self, event: events.Event, now_s: float) -> list[commands.Command]:
        """Apply an event that happened at `now_s`, and return the commands that follow, in order.

        An exception is a bug of ours. The commands decided before it must still be performed;
        `take_commands` returns them.
        """
        self._view = None
        self._take_in(event, now_s)
        self._follow(now_s)
        self.history.record(event, self._out, now_s)
        return self.take_commands()

    def take_commands(self) -> list[commands.Command]:
        """Return the commands that no call has returned yet."""
        pending = self._out[:]
        self._out.clear()
        return pending

    def _take_in(self, event: events.Event, now_s: float) -> None:
        if isinstance(event, events.TicketedRequest):
            self._take_in_request(event)
        elif isinstance(event, events.WorkerEvent):
            self._take_in_worker(event, now_s)
        elif isinstance(event, gateway_events.GatewayEvent):
            self._take_in_gateway(event, now_s)
        elif isinstance(event, llm_events.LlmEvent):
            self._take_in_llm(event, now_s)
        else:
            self._take_in_own(event, now_s)

    def _take_in_own(self, event: events.OwnEvent, now_s: float) -> None:
        match event:
            case events.Restored():
                self._restore(event, now_s)
            case events.ChangesSaved():
                try:
                    self._apply_saved(event.changes)
                finally:
                    # A bug above must not block all later requests: these changes are durable.
                    self.admin_queue.saved()
            case events.SaveFailed():
                self.admin_queue.save_failed(event.error)
            case events.SaveStalled():
                self.admin_queue.save_stalled(event.reason)
            case events.DrainRequested():
                self.is_draining = True
            case events.Ticked():
                self.hot_models.forget_quiet()
                self.pins.retry(now_s)
                self.drains.forget_gone(self.admin_queue)
                self.pool_sizes.tick(now_s)
            case _:
                assert_never(event)

    def _take_in_request(self, event: events.TicketedRequest) -> None:
        match event:
            case events.AdminRequested():
                self.admin_queue.add(event.request, event.ticket, event.by)
            case events.ModelLoadRequested():
                self.copy_requests.load(event)
            case events.ModelUnloadRequested():
                self.copy_requests.unload(event)
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
            case events.WorkerLost():
                self.workers.lost(event, now_s)
                self._forget_copies_unless_running(event.worker_id)
            case events.WorkerStopped():
                self.workers.stopped(event.worker_id)
                self._forget_copies_unless_running(event.worker_id)
            case events.CopyEnsured():
                self._copy_ensured(event, now_s)
            case events.CopyUnloaded():
                self.workers.see_copy(event.worker_id, event.id, event.copy)
                self.copy_requests.copy_unloaded(event)
            case _:
                assert_never(event)

    def _take_in_gateway(self, event: gateway_events.GatewayEvent, now_s: float) -> None:
        match event:
            case gateway_events.NodesSeen():
                self.catalog.nodes.seen = event.nodes
            case gateway_events.GatewayReported():
                self.gateways.reported(event)
            case gateway_events.GatewayConfigured():
                self.gateways.configured(event)
            case gateway_events.GatewayLost():
                self.gateways.lost(event, now_s)
            case gateway_events.GatewayStopped():
                self.gateways.stopped(event)
            case _:
                assert_never(event)

    def _take_in_llm(self, event: llm_events.LlmEvent, now_s: float) -> None:
        if self.pool_holds.take(event, now_s):
            return
        # A replica is watched while its pid is known, whatever the event did to it.
        replica_id = llms.replica_of(event)
        before = self.llms.fleet.find_replica(replica_id)
        pid_before = before.pid if before else 0
        self.llms.handle(event, now_s)
        after = self.llms.fleet.find_replica(replica_id)
        pid = after.pid if after else 0
        if pid and pid != pid_before:
            self._out.append(commands.Watch("replica", replica_id, pid))
        elif pid_before and not pid:
            reason = after.reason if after else ""
            self._out.append(commands.Unwatch("replica", replica_id, reason))

    # What follows from any event

    @property
    def _is_waiting(self) -> bool:
        # Nothing starts before the announced configuration is saved: it may change every pool.
        is_unconfigured = self._is_config_coming and not self.admin_queue.is_configured
        return not self._is_restored or is_unconfigured

    def _follow(self, now_s: float) -> None:
        if self._is_waiting:
            return
        self.gateways.reconcile(() if self.is_draining else self.drains.follow(now_s), now_s)
        # Workers end after the gateways: a draining gateway still has requests for them.
        if not self.is_draining or not self.gateways.records:
            self._follow_workers(now_s)
        self.pool_holds.follow(now_s, is_draining=self.is_draining)
        self.llms.reconcile(() if self.is_draining else self.catalog.desired.llms, now_s)

    def _follow_workers(self, now_s: float) -> None:
        # Gateways get the loss of a worker before its restart is ordered, which takes longer.
        self._follow_changed_pools()
        wanted = self.drains.pools(self.pool_sizes.wanted(self.catalog.desired.pools))
        self.workers.reconcile(() if self.is_draining else wanted, now_s)
        self._follow_changed_pools()
        self.pins.follow_moving()

    def _follow_changed_pools(self) -> None:
        changed, self.workers.changed = self.workers.changed, set()
        if changed:
            self.gateways.configure()
            # Until gateways know of this change, a request could meet a cluster without workers.
            self.gateways.needed = self.gateways.revision
        # Sorted, because a set's order differs between processes, and commands must not.
        for pool in sorted(changed):
            self.pins.follow_pool(pool)
            self.hot_models.follow_pool(pool)

    # The catalog

    def _restore(self, event: events.Restored, now_s: float) -> None:
        self._controller = event.controller
        for change in event.changes:
            self.catalog.apply(change)
        for living in event.workers:
            worker = self.workers.attach(living, now_s)
            # How far the steps of the earlier controller came is not known to this one.
            self._send_full(worker)
        for replica in event.replicas:
            self.llms.attach(replica, now_s)
            self._out.append(commands.Watch("replica", replica.replica_id, replica.pid))
        self._is_restored, self._is_config_coming = True, event.is_config_coming
        # The pins that an earlier controller has ordered are unknown, so all are ordered again.
        pinned = {declared.spec.id.name for declared in self.catalog.models if declared.spec.pinned}
        for name in sorted(pinned):
            self.pins.follow_name(name, ())

    def _apply_saved(self, changes: tuple[registry_contents.RegistryChange, ...]) -> None:
        names = self.catalog.affected_names(changes)
        aliases = {
            change.alias
            for change in changes
            if isinstance(change, desired.DesiredAlias | catalog.AliasCleared)
        }
        routed = names.keys() | aliases
        # Most registrations change no route, and a new snapshot would have to reach every Envoy.
        before = (self.catalog.desired.gateway, self.catalog.routes_of(routed))
        self.workers.send_changes(self.catalog.apply_saved(changes))
        if before != (self.catalog.desired.gateway, self.catalog.routes_of(routed)):
            self.gateways.configure()
        # A model that was declared anew may be another one: its measured load means nothing now.
        self.hot_models.forget_names(names)
        for name, declared in names.items():
            self.pins.follow_name(name, declared)

    # Workers

    def _worker_started(self, event: events.WorkerStarted) -> None:
        worker = self.workers.started(event)
        if worker is not None:
            self._forget_copies(worker.id)
            self._send_full(worker)
        elif event.worker_id not in self.workers.records:
            # It was forgotten while it started.
            self._out.append(commands.StopWorker(event.worker_id))

    def _sync_failed(self, event: events.SyncFailed) -> None:
        worker = self.workers.running(event.worker_id)
        # After a missed step every later one fails too: the first failure brings a full catalog.
        if worker is not None and event.revision > worker.full_after:
            self._send_full(worker)

    def _worker_reported(self, event: events.WorkerReported, now_s: float) -> None:
        worker = self.workers.running(event.report.worker_id)
        if worker is None:
            return
        worker.take_report(event.report)
        # The worker has an older catalog than when the report was requested: its process is new.
        if event.report.revision < event.revision and worker.full_after < event.revision:
            self._send_full(worker)
        self._learn(event.report.measured)
        self._quarantine.take_report(event.report)
        self.totals.take(worker.id, event.report.figures, now_s)
        # A draining mesh loads nothing any more.
        if not self.is_draining:
            self.workers.replace_if_ailing(worker)
            self.hot_models.worker_reported(worker.id, event.report.demands, now_s)

    def _learn(self, measurements: tuple[reports.LearnedMeasurement, ...]) -> None:
        learned, by_pool = self.catalog.learn(measurements)
        if learned:
            self.workers.send_changes(by_pool)
            self._out.append(commands.RememberMeasured(learned))

    def _send_full(self, worker: workers.WorkerRecord) -> None:
        self.workers.send_full(worker, self.catalog.parts(worker.settings.pool))

    def _forget_copies_unless_running(self, worker_id: str) -> None:
        # The end of an earlier process says nothing about the copies of the one that runs.
        if self.workers.running(worker_id) is None:
            self._forget_copies(worker_id)

    def _forget_copies(self, worker_id: str) -> None:
        self.pins.forget_worker(worker_id)
        self.drains.forget_worker(worker_id)
        self.hot_models.forget_worker(worker_id)
        self.copy_requests.forget_worker(worker_id)

    def _copy_ensured(self, event: events.CopyEnsured, now_s: float) -> None:
        self.workers.see_copy(event.worker_id, event.id, event.copy)
        if event.ticket:
            # The load that a user requested may have had a shorter timeout than the mesh's own.
            self.copy_requests.copy_ensured(event)
            return
        self.hot_models.copy_ensured(event, now_s)
        self.drains.copy_ensured(event)
        waiting = self.pins.copy_ensured(event, now_s)
        if not waiting:
            return
        # One alias at a time: moving the first may withdraw the model that the next ones mean.
        self.pins.load_again(waiting[1:])
        alias = waiting[0]
        self.admin_queue.add(
            alias_requests.AliasMoveEnded(alias.alias, alias.target, event.failure)
        )

    # Reading

    def view(self) -> mesh_view.MeshView:
        """Return a view of the mesh as it is now; all readers before the next event share it."""
        if self._view is None:
            self._view = mesh_view.MeshView(
                config=self.catalog.desired,
                is_draining=self.is_draining,
                are_gateways_serving=self.gateways.are_serving,
                workers=mesh_view.worker_views(self.workers.records.values()),
                gateways=mesh_view.gateway_views(self.gateways.records.values()),
                hot_routes=self.hot_models.routes(),
                llms=mesh_view.llm_views(self.llms.llms.values()),
                nodes=node_views.views(self.catalog.nodes.seen, self.drains),
                pools=self.pool_holds.views(),
                models=self.catalog.models,
                aliases=MappingProxyType(self.catalog.aliases),
                events=self.history.log,
                totals=self.totals,
                _index=self.catalog,
                _workers=self.workers,
            )
        return self._view

    @property
    def is_drained(self) -> bool:
        """Whether everything has ended after a DrainRequested."""
        has_processes = bool(self.gateways.records or self.workers.records)
        return self.is_draining and not has_processes and self.llms.is_empty

    def gateway_snapshot(self, node: str) -> snapshots.GatewaySnapshot:
        """Return the snapshot from which to configure the node's gateway now."""
        wanted = self.catalog.desired
        return snapshots.GatewaySnapshot(
            listen=wanted.gateway.listen,
            node=node,
            pools={pool.name: self.workers.members(pool.name) for pool in wanted.pools},
            routes=dict(self.catalog.routes),
            controller=self._controller,
            request_bytes_max=wanted.gateway.request_bytes_max,
            is_native=wanted.gateway.is_native and not wanted.can_sleep,
            keys=wanted.gateway.keys,
            cors_origins=wanted.gateway.cors_origins,
            revision=self.gateways.revision,
            workers_wanted=sum(pool.workers_min for pool in wanted.pools),
            held=self.pool_holds.held(),
            llms=self.llms.routes(),
            hot=self.hot_models.routes(),
            is_leaving=node in self.drains.drains,
        )

    def check(self) -> None:
        """Assert what holds after every event."""
        self.catalog.check()
        self.llms.check()
        self.hot_models.check()
        self.copy_requests.check()
        self.drains.check()
        self.pool_holds.check()
        if not (self.is_draining or self._is_waiting):
            self.pins.check()
        self.workers.check()
