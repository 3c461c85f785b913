"""The whole mesh: what happens to it in, what is to be done out. Wishes are saved before they hold; all else follows from what holds."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from meshserve.core.catalog import admin_requests, catalog_index
from meshserve.core.llm import llms
from meshserve.core.mesh import hot_models, pins
from meshserve.core.processes import gateways, workers
from meshserve.core.values import catalog, commands, desired, events, model, reports, snapshots

REMEASURED_RATIO = 1.25
Commands = Iterable[commands.Command]


class Mesh:
    """What should be, what is, and the way from the one to the other.

    A wish is answered by SaveChanges (or by nothing, where it changes nothing), and changes nothing before ChangesSaved has come.
    Wishes that can't be granted raise, and change nothing.
    """

    def __init__(self) -> None:
        self.catalog = catalog_index.CatalogIndex()
        self.workers = workers.Workers()
        self.gateways = gateways.Gateways()
        self.pins = pins.Pins(self.catalog, self.workers)
        self.hot_models = hot_models.HotModels(self.catalog, self.workers, self.gateways)
        self._out: commands.Outbox = []
        self.llms = llms.Llms(self.gateways, self._out)
        self.is_draining = False
        self._nodes: tuple[str, ...] = ()
        self._controller: model.Endpoint | None = None
        self._scans: dict[model.Origin, tuple[model.ModelSpec, ...]] = {}
        self._is_waiting = True
        self._wishes = self._wish_handlers()
        self._facts: dict[type, Callable[[Any, float], Commands]] = {
            events.Restored: self._restored,
            events.ChangesSaved: self._saved,
            events.DrainRequested: self._drain,
            events.WorkerStarted: self._worker_started,
            events.WorkerSynced: self._worker_synced,
            events.SyncFailed: self._sync_failed,
            events.WorkerReported: self._worker_reported,
            events.CopySeen: self._copy_seen,
            events.WorkerLost: self._worker_lost,
            events.WorkerStopped: self._worker_stopped,
            events.CopyEnsured: self._copy_ensured,
            events.NodesSeen: self._nodes_seen,
            events.GatewayReported: self._gateway_reported,
            events.GatewayConfigured: self._gateway_configured,
            events.GatewayLost: self._gateway_lost,
            events.GatewayStopped: self._gateway_stopped,
            events.Ticked: self._ticked,
            **dict.fromkeys(typing.get_args(events.LlmEvent), self._llm_event),
        }

    def _wish_handlers(self) -> dict[type, Callable[[Any], commands.SaveChanges]]:
        return {
            events.ConfigApplied: self._config_applied,
            events.ModelsRegistered: lambda event: admin_requests.register(self.catalog, event),
            events.ModelRemoved: lambda event: admin_requests.remove(self.catalog, event),
            events.RepositoryScanned: self._scanned,
            events.AliasRequested: lambda event: admin_requests.set_alias(self.catalog, event),
            events.AliasRemovalRequested: lambda event: admin_requests.clear_alias(
                self.catalog, event
            ),
            events.PinRequested: lambda event: admin_requests.pin(self.catalog, event),
        }

    def handle(self, event: events.Event, now_s: float) -> list[commands.Command]:
        """Take in what happened at `now_s`, and say what is to be done. Raises what is wrong with a wish."""
        wish = self._wishes.get(type(event))
        asked = self._save(wish(event)) if wish else self._facts[type(event)](event, now_s)
        return [*asked, *self._follow(now_s)]

    def _follow(self, now_s: float) -> Iterator[commands.Command]:
        if self._is_waiting:
            return
        yield from self.gateways.reconcile(() if self.is_draining else self._nodes, now_s)
        if not self.is_draining or not self.gateways.records:
            yield from self._follow_workers(now_s)
        self.llms.reconcile(() if self.is_draining else self.catalog.desired.llms, now_s)
        yield from self._drain_outbox()

    def _llm_event(self, event: events.LlmEvent, now_s: float) -> Commands:
        self.llms.handle(event, now_s)
        return self._drain_outbox()

    def _drain_outbox(self) -> list[commands.Command]:
        drained = list(self._out)
        self._out.clear()
        return drained

    def _follow_workers(self, now_s: float) -> Iterator[commands.Command]:
        stops = list(
            self.workers.reconcile(() if self.is_draining else self.catalog.desired.pools, now_s)
        )
        changed, self.workers.changed = self.workers.changed, set()
        if changed:
            yield from self.gateways.configure()
            self.gateways.needed = self.gateways.revision
        yield from stops
        for pool in sorted(changed):
            yield from self.pins.follow_pool(pool)
            yield from self.hot_models.follow_pool(pool)
        yield from self.pins.follow_moving()

    def _save(self, wish: commands.SaveChanges) -> Commands:
        return (wish,) if wish.changes or wish.words else ()

    def _config_applied(self, event: events.ConfigApplied) -> commands.SaveChanges:
        wish = admin_requests.configure(self.catalog, event.desired, self._scans)
        self._is_waiting = self._is_waiting and bool(wish.changes)
        return wish

    def _scanned(self, event: events.RepositoryScanned) -> commands.SaveChanges:
        wish = admin_requests.scan(self.catalog, event)
        self._scans[event.origin] = event.specs
        return wish

    def _drain(self, _: events.DrainRequested, __: float) -> Commands:
        self.is_draining = True
        return ()

    def _restored(self, event: events.Restored, now_s: float) -> Iterator[commands.Command]:
        self._controller = event.controller
        for change in event.changes:
            self.catalog.make(change)
        for living in event.workers:
            worker = self.workers.attach(living, now_s)
            yield from self.workers.give_whole(worker, self.catalog.whole(worker.settings.pool))
        for replica in event.replicas:
            self.llms.attach(replica, now_s)
        self._is_waiting = event.is_config_coming
        for name in {
            declared.spec.id.name for declared in self.catalog.models if declared.spec.pinned
        }:
            yield from self.pins.follow_name(name, ())

    def _saved(self, event: events.ChangesSaved, _: float) -> Iterator[commands.Command]:
        self._is_waiting = False
        names = self.catalog.touched(event.changes)
        seen = names.keys() | {
            change.alias
            for change in event.changes
            if isinstance(change, desired.DesiredAlias | catalog.AliasCleared)
        }
        before = (self.catalog.desired.gateway, self.catalog.routes_of(seen))
        yield from self._tell(
            made for change in event.changes for made in self.catalog.make(change)
        )
        if before != (self.catalog.desired.gateway, self.catalog.routes_of(seen)):
            yield from self.gateways.configure()
        yield from self.hot_models.forget_names(names)
        for name, declared in names.items():
            yield from self.pins.follow_name(name, declared)

    def _tell(self, made: Iterable[catalog_index.PoolChange]) -> Iterator[commands.Command]:
        told: dict[str, list[catalog.Change]] = {}
        for each in made:
            told.setdefault(each.pool, []).append(each.change)
        for pool, changes in told.items():
            shared = tuple(changes)
            for worker in self.workers.of_pool(pool):
                if worker.is_up:
                    yield from self.workers.give(worker, shared)

    def _worker_started(self, event: events.WorkerStarted, _: float) -> Commands:
        worker = self.workers.started(event)
        if worker is None:
            return (
                ()
                if event.worker_id in self.workers.records
                else (commands.StopWorker(event.worker_id),)
            )
        self._forget(worker.id)
        return self.workers.give_whole(worker, self.catalog.whole(worker.settings.pool))

    def _worker_synced(self, event: events.WorkerSynced, _: float) -> Commands:
        self.workers.synced(event)
        return ()

    def _sync_failed(self, event: events.SyncFailed, _: float) -> Commands:
        worker = self.workers.records.get(event.worker_id)
        if worker is None or not worker.is_up or event.revision <= worker.whole_after:
            return ()
        return self.workers.give_whole(worker, self.catalog.whole(worker.settings.pool))

    def _worker_reported(
        self, event: events.WorkerReported, now_s: float
    ) -> Iterator[commands.Command]:
        worker = self.workers.records.get(event.report.worker_id)
        if worker is None or not worker.is_up:
            return
        worker.take_report(event.report)
        if event.report.revision < event.revision and worker.whole_after < event.revision:
            yield from self.workers.give_whole(worker, self.catalog.whole(worker.settings.pool))
        yield from self._learn(event.report.measured)
        if not self.is_draining:
            yield from self.hot_models.reported(worker.id, event.report.demands, now_s)

    def _learn(self, learned: Iterable[reports.LearnedMeasurement]) -> Iterator[commands.Command]:
        news = tuple(each for each in learned if self._is_news(each))
        declared = ((self.catalog.models.declared(each.id), each.measured) for each in news)
        yield from self._tell(
            made
            for each, measured in declared
            if each
            for made in self.catalog.make(catalog.ModelDeclared(each.spec, measured))
        )
        if news:
            yield commands.RememberMeasured(news)

    def _is_news(self, learned: reports.LearnedMeasurement) -> bool:
        declared = self.catalog.models.declared(learned.id)
        if declared is None:
            return False
        known, new = declared.measured, learned.measured
        return (
            known is None
            or known.digest != new.digest
            or is_remeasured(known.footprint, new.footprint)
        )

    def _copy_seen(self, event: events.CopySeen, _: float) -> Commands:
        worker = self.workers.records.get(event.worker_id)
        if worker is not None and worker.is_up:
            worker.see_copy(event.id, event.copy)
        return ()

    def _worker_lost(self, event: events.WorkerLost, now_s: float) -> Commands:
        self.workers.lost(event, now_s)
        self._forget(event.worker_id)
        return ()

    def _worker_stopped(self, event: events.WorkerStopped, _: float) -> Commands:
        self.workers.stopped(event.worker_id)
        self._forget(event.worker_id)
        return ()

    def _forget(self, worker_id: str) -> None:
        self.pins.forget_worker(worker_id)
        self.hot_models.forget_worker(worker_id)

    def _copy_ensured(self, event: events.CopyEnsured, now_s: float) -> Iterator[commands.Command]:
        yield from self.hot_models.ensured(event, now_s)
        waiting = self.pins.ensured(event, now_s)
        if waiting:
            self.pins.seek_again(waiting[1:])
            failed = event.failure
            yield from self._save(
                admin_requests.blame(self.catalog, waiting[0], failed)
                if failed
                else admin_requests.flip(self.catalog, waiting[0])
            )

    def _ticked(self, _: events.Ticked, now_s: float) -> Iterator[commands.Command]:
        self.hot_models.tidy()
        yield from self.pins.retry(now_s)

    def _nodes_seen(self, event: events.NodesSeen, _: float) -> Commands:
        self._nodes = event.nodes
        return ()

    def _gateway_reported(self, event: events.GatewayReported, _: float) -> Commands:
        self.gateways.reported(event)
        return ()

    def _gateway_configured(self, event: events.GatewayConfigured, _: float) -> Commands:
        self.gateways.configured(event)
        return ()

    def _gateway_lost(self, event: events.GatewayLost, now_s: float) -> Commands:
        self.gateways.lost(event, now_s)
        return ()

    def _gateway_stopped(self, event: events.GatewayStopped, _: float) -> Commands:
        self.gateways.stopped(event)
        return ()

    @property
    def is_drained(self) -> bool:
        """Whether everything has ended after a DrainRequested."""
        return (
            self.is_draining
            and not (self.gateways.records or self.workers.records)
            and self.llms.is_empty
        )

    def gateway_snapshot(self, node: str) -> snapshots.GatewaySnapshot:
        """What the node's gateway is to be configured from, now."""
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
        workers = self.workers.of_pool(pool)
        return tuple(
            snapshots.RingMember(each.id, each.endpoint, each.state == "ready")
            for each in workers
            if each.endpoint
        )

    def home(self, name: str) -> str | None:
        """The ready worker to which requests for this model or alias go, if there is one."""
        pool = self.catalog.pool_of(name)
        return self.workers.home(pool, name) if pool else None

    def check(self) -> None:
        """State what always holds."""
        self.catalog.check()
        self.llms.check()
        self.hot_models.check()
        if not (self.is_draining or self._is_waiting):
            self.pins.check()
        for worker in self.workers.records.values():
            assert worker.synced <= worker.sent
            assert worker.state != "ready" or (worker.is_up and worker.endpoint)
            assert worker.is_up or worker.state != "ready"


def is_remeasured(known: model.Footprint, new: model.Footprint) -> bool:
    """Whether a footprint differs from the known one by more than measuring does."""
    pairs = zip(known, new, strict=True)
    return any(max(pair) > REMEASURED_RATIO * min(pair) for pair in pairs)
