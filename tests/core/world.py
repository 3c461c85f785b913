"""A mesh and a world around it that performs its commands one by one, in any order that the lanes allow."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque

from meshserve import errors
from meshserve.core.mesh import mesh
from meshserve.core.values import catalog, catalog_sync, commands, desired, events, model, reports

NODE = "n1"


def spec(name: str, version: str = "1", **fields) -> model.ModelSpec:
    """A spec whose URI tells its name."""
    return model.ModelSpec(
        model.ModelId(name, version), **{"uri": f"/models/{name}/{version}", **fields}
    )


def pool(name: str = "default", workers: int = 2, **settings) -> desired.PoolSettings:
    """A pool of that many workers."""
    return desired.PoolSettings(desired.WorkerSettings(pool=name, **settings), workers)


def measured(name: str, size: int) -> reports.LearnedMeasurement:
    """What loading version 1 of a model taught."""
    return reports.LearnedMeasurement(
        model.ModelId(name), model.Measured(f"sha256:{name}", model.Footprint(size), 0.1)
    )


class Process:
    """What a worker's process holds."""

    def __init__(self, pid: int, settings: desired.WorkerSettings) -> None:
        self.pid = pid
        self.settings = settings
        self.replica = catalog_sync.CatalogFollower()
        self.pins: set[model.ModelId] = set()


class World:
    """Performs commands, keeps what is saved, and holds the mesh to its promises."""

    def __init__(self) -> None:
        self.mesh = mesh.Mesh()
        self.now_s = 0.0
        self.lanes: dict[str, deque[commands.Command]] = defaultdict(deque)
        self.processes: dict[str, Process] = {}
        self.gateways: set[str] = set()
        self.saved_models: dict[model.ModelId, model.ModelSpec] = {}
        self.saved_aliases: dict[str, desired.DesiredAlias] = {}
        self.failing_loads: set[str] = set()
        self.log: list[commands.Command] = []
        self._pids = itertools.count(1)
        self.feed(events.Restored())
        self.feed(events.NodesSeen((NODE,)))

    def feed(self, event: events.Event, *, is_store_broken: bool = False) -> tuple[str, ...]:
        """Have the mesh take the event in; returns the words of what is saved."""
        words: tuple[str, ...] = ()
        for command in self.mesh.handle(event, self.now_s):
            self.log.append(command)
            if isinstance(command, commands.SaveChanges):
                words += command.words
                if not is_store_broken:
                    self._save(command.changes)
            elif not isinstance(command, commands.RememberMeasured):
                self._queue(command)
        return words

    def refused(self, event: events.Event) -> str:
        """The class of the error that refuses the wish; empty if it was granted."""
        try:
            self.feed(event)
        except errors.MeshError as error:
            return type(error).__name__
        return ""

    def _save(self, changes: tuple[events.RegistryChange, ...]) -> None:
        for change in changes:
            match change:
                case catalog.ModelDeclared():
                    self.saved_models[change.spec.id] = change.spec
                case catalog.ModelWithdrawn():
                    del self.saved_models[change.id]
                case desired.DesiredAlias():
                    self.saved_aliases[change.alias] = change
                case catalog.AliasCleared():
                    del self.saved_aliases[change.alias]
        if changes:
            self.feed(events.ChangesSaved(changes))

    def _queue(self, command: commands.Command) -> None:
        name = getattr(command, "worker_id", "") or f"gateway {command.node}"
        worker = self.mesh.workers.records.get(name)
        if isinstance(
            command, commands.SendChanges | commands.EnsureLoaded | commands.Pin | commands.Unpin
        ):
            assert worker is not None, f"{command} to a worker that is not there"
            assert worker.is_up, f"{command} to a lost worker"
        self.lanes[name].append(command)

    def step(self, lane: str, *, is_lost: bool = False) -> None:
        """Perform the first command of a lane. `is_lost`: the worker's call gets lost on the way."""
        command = self.lanes[lane].popleft()
        match command:
            case commands.StartGateway():
                self.gateways.add(command.node)
                self.feed(
                    events.GatewayReported(reports.GatewayReport(command.node, 1, 2, "ready", ""))
                )
                self._configured(command.node)
            case commands.ConfigureGateway():
                self._configured(command.node)
            case commands.StopGateway():
                self.gateways.discard(command.node)
                self.feed(events.GatewayStopped(command.node))
            case commands.StartWorker():
                self._start(command)
            case commands.StopWorker():
                self.processes.pop(command.worker_id, None)
                self.feed(events.WorkerStopped(command.worker_id))
            case commands.SendChanges() if is_lost:
                self.feed(events.SyncFailed(command.worker_id, command.step.revision))
            case _:
                self._on_process(command)

    def _configured(self, node: str) -> None:
        if node in self.gateways:
            self.feed(events.GatewayConfigured(node, self.mesh.gateway_snapshot(node).revision))

    def _start(self, command: commands.StartWorker) -> None:
        process = self.processes[command.worker_id] = Process(next(self._pids), command.settings)
        endpoint = model.Endpoint(NODE, "127.0.0.1", process.pid)
        self.feed(events.WorkerStarted(command.worker_id, endpoint, process.pid))

    def _on_process(self, command: commands.Command) -> None:
        process = self.processes.get(getattr(command, "worker_id", ""))
        if process is None:
            return
        match command:
            case commands.SendChanges():
                self._send(process, command)
            case commands.Pin():
                process.pins.add(command.id)
            case commands.Unpin():
                process.pins.discard(command.id)
            case commands.EnsureLoaded():
                failure = "it is broken" if command.id.name in self.failing_loads else ""
                self.feed(events.CopyEnsured(command.worker_id, command.id, failure))

    def _send(self, process: Process, command: commands.SendChanges) -> None:
        try:
            changes = process.replica.apply(command.step)
        except catalog_sync.MissedStep:
            self.feed(events.SyncFailed(command.worker_id, command.step.revision))
            return
        process.pins -= {
            change.id for change in changes if isinstance(change, catalog.ModelWithdrawn)
        }
        self.feed(events.WorkerSynced(command.worker_id, command.step.revision))

    def kill(self, worker_id: str) -> None:
        """End a worker's process, and everything under way with it."""
        process = self.processes.pop(worker_id)
        draining = self.mesh.workers.records[worker_id].state == "draining"
        if not draining:
            self.lanes[worker_id].clear()
        self.feed(events.WorkerLost(worker_id, "killed", process.pid))

    def tick(self, seconds: float) -> None:
        """Let time go by."""
        self.now_s += seconds
        self.feed(events.Ticked())

    def perform_all(self) -> None:
        """Perform everything, while time stands still."""
        while any(self.lanes.values()):
            self.step(next(name for name, lane in self.lanes.items() if lane))

    def settle(self) -> None:
        """Have loads succeed, perform everything, and let time go by, until nothing is left to be done."""
        self.failing_loads = set()
        for _ in range(50):
            self.perform_all()
            self.tick(31.0)
            if not any(self.lanes.values()):
                return
        raise AssertionError(f"it does not come to rest: {dict(self.lanes)}")

    def apply(self, **wanted) -> tuple[str, ...]:
        """Apply a configuration and let everything come of it."""
        words = self.feed(events.ConfigApplied(desired.Desired(**wanted)))
        self.settle()
        return words

    def check(self) -> None:
        """What holds at every moment."""
        self.mesh.check()
        assert {
            declared.spec.id: declared.spec for declared in self.mesh.catalog.models
        } == self.saved_models
        assert self.mesh.catalog.aliases == self.saved_aliases

    def check_settled(self) -> None:
        """What holds when all is performed: workers are as desired, know exactly their pool's catalog, and pin what is at home there."""
        wanted = {
            id_: pool_.settings
            for pool_ in self.mesh.catalog.desired.pools
            for id_ in pool_.worker_ids()
        }
        assert {
            worker_id: process.settings for worker_id, process in self.processes.items()
        } == wanted
        assert set(self.mesh.workers.records) == set(wanted)
        for worker_id, process in self.processes.items():
            self._check_process(worker_id, process)
        assert set(self.mesh.pins.pinned) == {
            id_ for id_, spec_ in self.saved_models.items() if spec_.pinned
        }
        assert [
            alias
            for alias in self.mesh.catalog.moving()
            if self.mesh.workers.ready(self.mesh.catalog.pool_of(alias.target) or "")
        ] == []
        assert self.gateways == {NODE}
        assert self.mesh.gateways.are_serving
        assert self.mesh.gateways.have_all_taken(self.mesh.gateways.revision)

    def _check_process(self, worker_id: str, process: Process) -> None:
        assert self.mesh.workers.is_ready(worker_id)
        share = self.mesh.catalog.share(process.settings.pool)
        assert list(catalog_sync.difference(process.replica.catalog, share)) == []
        assert process.pins == {
            id_ for id_, homes in self.mesh.pins.pinned.items() if worker_id in homes
        }
