"""A mesh and a world around it that performs its commands one by one, in any legal order."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from meshserve import errors
from meshserve.core.mesh import mesh
from meshserve.core.values import (
    catalog,
    catalog_sync,
    commands,
    containment,
    desired,
    events,
    gateway_events,
    model,
    nodes,
    registry_contents,
    reports,
)

NODE = "n1"


def spec(name: str, version: str = "1", **fields: Any) -> model.ModelSpec:
    """Return a spec whose URI contains its name and version."""
    return model.ModelSpec(
        model.ModelId(name, version), **{"uri": f"/models/{name}/{version}", **fields}
    )


def pool(name: str = "default", workers: int = 2, **settings: Any) -> desired.PoolSettings:
    """Return the settings of a pool of so many workers."""
    return desired.PoolSettings(desired.WorkerSettings(pool=name, **settings), workers)


def measured(name: str, size: int) -> reports.LearnedMeasurement:
    """Return a measurement of version 1 of a model, of so many bytes of host memory."""
    return reports.LearnedMeasurement(
        model.ModelId(name), model.Measured(f"sha256:{name}", model.Footprint(size), 0.1)
    )


def ready_copy(id_: model.ModelId) -> reports.CopyReport:
    """Return the report of a copy that is ready."""
    return reports.CopyReport(id_, "ready")


class Process:
    """A worker's process: its settings, catalog and pins."""

    def __init__(self, pid: int, settings: desired.WorkerSettings, node: str = NODE) -> None:
        self.pid = pid
        self.node = node
        self.settings = settings
        self.follower = catalog_sync.CatalogFollower()
        self.pins: set[model.ModelId] = set()


class World:
    """The world around a mesh: performs its commands, saves its changes, and checks its promises.

    Commands wait in lanes, one for each process; `step` performs the first of a lane. With
    `is_saving_slowly` the registry is a lane too.
    """

    def __init__(
        self, *, is_saving_slowly: bool = False, node_names: tuple[str, ...] = (NODE,)
    ) -> None:
        self.mesh = mesh.Mesh()
        self.now_s = 0.0
        self.lanes: dict[str, deque[commands.Command]] = defaultdict(deque)
        self.processes: dict[str, Process] = {}
        self.gateways: set[str] = set()
        self.saved_models: dict[model.ModelId, model.ModelSpec] = {}
        self.saved_aliases: dict[str, desired.DesiredAlias] = {}
        self.saved_quarantines: dict[str, containment.CopyQuarantined] = {}
        self.failing_loads: set[str] = set()
        self.log: list[commands.Command] = []
        self.watched: dict[tuple[str, str], int] = {}
        self.open_tickets: set[str] = set()
        self.ticket_answers: dict[str, commands.AnswerCommand] = {}
        self.held_answers: dict[str, commands.HeldCommand] = {}
        self.is_store_broken = False
        self._is_saving_slowly = is_saving_slowly
        self._numbers = itertools.count(1)
        self._pids = itertools.count(1)
        self.feed(events.Restored())
        self.see_nodes(*node_names)

    def see_nodes(self, *names: str) -> None:
        """Tell the mesh which nodes there are; the first is the head."""
        self.node_names = names
        seen = tuple(nodes.ClusterNode(name, is_head=name == names[0]) for name in names)
        self.feed(gateway_events.NodesSeen(seen))

    def home(self, name: str) -> str:
        """Return the ready worker of a model or alias, which must have one."""
        worker_id = self.mesh.view().home(name)
        assert worker_id is not None, f"{name} has no home"
        return worker_id

    def declared(self, id_: model.ModelId) -> catalog.ModelDeclared:
        """Return the declaration of a model, which must have one."""
        declared = self.mesh.catalog.models.declared(id_)
        assert declared is not None, f"{id_} is not declared"
        return declared

    def feed(
        self, event: events.Event | events.AdminRequest, *, is_store_broken: bool = False
    ) -> tuple[str, ...]:
        """Have the mesh handle the event, and return the words that answer an admin request.

        Raises the error that refuses it.
        """
        if isinstance(event, events.AdminRequest):
            self.is_store_broken = is_store_broken
            answer = self.request(lambda ticket: events.AdminRequested(ticket, event))
            self.is_store_broken = False
            if isinstance(answer, commands.Refuse):
                raise answer.error
            return answer.words if answer else ()
        for command in self.mesh.handle(event, self.now_s):
            self._perform(command)
        return ()

    def request(
        self, make: Callable[[str], events.TicketedRequest]
    ) -> commands.AnswerCommand | None:
        """Send a request with a new ticket; return its answer, or None if it has none yet."""
        ticket = f"request {next(self._numbers)}"
        self.open_tickets.add(ticket)
        self.feed(make(ticket))
        return self.ticket_answers.get(ticket)

    def load(self, name: str) -> commands.AnswerCommand | None:
        """Request a load of the newest version of the model that the name means."""
        id_ = self.mesh.catalog.models.resolve(name)
        return self.request(lambda ticket: events.ModelLoadRequested(ticket, name, id_))

    def unload(self, name: str) -> commands.AnswerCommand | None:
        """Request an unload of the newest version of the model that the name means."""
        id_ = self.mesh.catalog.models.resolve(name)
        return self.request(lambda ticket: events.ModelUnloadRequested(ticket, id_))

    def refused(self, event: events.AdminRequest) -> str:
        """Return the class name of the error that refuses the request; empty if it is granted."""
        try:
            self.feed(event)
        except errors.MeshError as error:
            return type(error).__name__
        return ""

    def _perform(self, command: commands.Command) -> None:  # noqa: C901 - a case a command
        match command:
            case commands.Acknowledge() | commands.Refuse():
                self.open_tickets.remove(command.ticket)
                self.ticket_answers[command.ticket] = command
            case commands.Admit() | commands.TurnAway():
                self.log.append(command)
                self._answered(command)
            case commands.Watch():
                self.watched[command.kind, command.id] = command.pid
            case commands.Unwatch():
                self.watched.pop((command.kind, command.id), None)
            case commands.AbandonWorker():
                self.lanes[command.worker_id].clear()
            case commands.RememberMeasured() | commands.EndNode():
                self.log.append(command)
            case commands.SaveChanges() if not self._is_saving_slowly:
                self.log.append(command)
                self._save(command, is_failing=self.is_store_broken)
            case commands.SaveChanges():
                self.lanes["registry"].append(command)
            case _:
                self.log.append(command)
                self._queue(command)

    def _answered(self, command: commands.HeldCommand) -> None:
        assert command.ticket not in self.held_answers, "a held request is answered once"
        self.held_answers[command.ticket] = command

    def _save(self, command: commands.SaveChanges, *, is_failing: bool) -> None:
        if is_failing:
            self.feed(events.SaveFailed(errors.Unavailable("the registry is broken")))
            return
        for change in command.changes:
            self._keep(change)
        self.feed(events.ChangesSaved(command.changes))

    def _keep(self, change: registry_contents.RegistryChange) -> None:
        match change:
            case catalog.ModelDeclared():
                self.saved_models[change.spec.id] = change.spec
            case catalog.ModelWithdrawn():
                del self.saved_models[change.id]
            case desired.DesiredAlias():
                self.saved_aliases[change.alias] = change
            case catalog.AliasCleared():
                del self.saved_aliases[change.alias]
            case containment.CopyQuarantined():
                self.saved_quarantines[change.key] = change
            case containment.QuarantineEnded():
                del self.saved_quarantines[change.key]

    def _queue(self, command: commands.Command) -> None:
        if isinstance(command, commands.GatewayCommand):
            self.lanes[f"gateway {command.node}"].append(command)
            return
        assert isinstance(command, commands.WorkerCommand), f"{command} has no lane"
        worker = self.mesh.workers.records.get(command.worker_id)
        if not isinstance(command, commands.StartWorker | commands.StopWorker):
            assert worker is not None, f"{command} to an unknown worker"
            assert worker.is_up, f"{command} to a lost worker"
        self.lanes[command.worker_id].append(command)

    def step(self, lane: str, *, is_lost: bool = False) -> None:
        """Perform the first command of a lane; with `is_lost` the call or the save fails."""
        command = self.lanes[lane].popleft()
        match command:
            case commands.SaveChanges():
                self._save(command, is_failing=is_lost)
            case commands.StartGateway():
                self.gateways.add(command.node)
                self.feed(
                    gateway_events.GatewayReported(
                        reports.GatewayReport(command.node, 1, 2, "ready", "")
                    )
                )
                self._configured(command.node)
            case commands.ConfigureGateway():
                self._configured(command.node)
            case commands.StopGateway():
                self.gateways.discard(command.node)
                self.feed(gateway_events.GatewayStopped(command.node))
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
            self.feed(
                gateway_events.GatewayConfigured(node, self.mesh.gateway_snapshot(node).revision)
            )

    def _start(self, command: commands.StartWorker) -> None:
        able = [name for name in self.node_names if name not in command.avoided]
        taken = [process.node for process in self.processes.values()]
        node = min(able, key=taken.count, default="")
        if not node:
            self.feed(events.WorkerLost(command.worker_id, "all nodes are being drained"))
            return
        process = Process(next(self._pids), command.settings, node)
        self.processes[command.worker_id] = process
        endpoint = model.Endpoint(node, "127.0.0.1", process.pid)
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
                is_failing = command.id.name in self.failing_loads
                error = errors.LoadFailed("it is broken") if is_failing else None
                copy = self.mesh.workers.records[command.worker_id].copies.get(command.id)
                self.feed(
                    events.CopyEnsured(command.worker_id, command.id, error, copy, command.ticket)
                )
            case commands.Unload():
                self.feed(events.CopyUnloaded(command.worker_id, command.id, ticket=command.ticket))

    def _send(self, process: Process, command: commands.SendChanges) -> None:
        try:
            changes = process.follower.apply(command.step)
        except catalog_sync.MissedStep:
            self.feed(events.SyncFailed(command.worker_id, command.step.revision))
            return
        process.pins -= {
            change.id for change in changes if isinstance(change, catalog.ModelWithdrawn)
        }
        self.feed(events.WorkerSynced(command.worker_id, command.step.revision))

    def hear_report(self, worker_id: str, **fields: Any) -> None:
        """Let a worker that runs report."""
        process = self.processes[worker_id]
        revision = process.follower.revision
        report = reports.WorkerReport(
            worker_id, process.pid, process.node, "ready", revision, **fields
        )
        synced = self.mesh.workers.records[worker_id].synced
        self.feed(events.WorkerReported(report, synced))

    def kill(self, worker_id: str) -> None:
        """End a worker's process."""
        process = self.processes.pop(worker_id)
        self.feed(events.WorkerLost(worker_id, "killed", process.pid))

    def tick(self, seconds: float) -> None:
        """Let time pass, then fire the timer."""
        self.now_s += seconds
        self.feed(events.Ticked())

    def perform_all(self) -> None:
        """Perform all commands, while time stands still."""
        while any(self.lanes.values()):
            self.step(next(name for name, lane in self.lanes.items() if lane))

    def settle(self) -> None:
        """Let loads succeed, perform all commands and let time pass, until no command is left."""
        self.failing_loads = set()
        for _ in range(50):
            self.perform_all()
            self.tick(31.0)
            if not any(self.lanes.values()):
                return
        raise AssertionError(f"the mesh does not come to rest: {dict(self.lanes)}")

    def apply(self, **fields: Any) -> tuple[str, ...]:
        """Apply a configuration, settle, and return the words that describe its changes."""
        words = self.feed(events.ConfigApplied(desired.Desired(**fields)))
        self.settle()
        return words

    def check(self) -> None:
        """Assert what holds at every moment."""
        self.mesh.check()
        assert {
            declared.spec.id: declared.spec for declared in self.mesh.catalog.models
        } == self.saved_models
        assert self.mesh.catalog.aliases == self.saved_aliases
        assert self.mesh.catalog.models.quarantines == self.saved_quarantines
        assert not self.saved_quarantines.keys() & self.mesh.catalog.models.suspects.keys()
        watched = {id_: pid for (kind, id_), pid in self.watched.items() if kind == "worker"}
        assert watched == {
            worker.id: worker.pid for worker in self.mesh.workers.records.values() if worker.is_up
        }

    def check_settled(self) -> None:
        """Assert what holds when all commands are performed.

        Workers are as desired, have exactly their pool's catalog, and pin the models of which they
        are the home.
        """
        assert self.open_tickets == set()
        assert not self.mesh.admin_queue.has_open
        wanted = {
            id_: pool_.settings
            for pool_ in self.mesh.pool_sizes.wanted(self.mesh.catalog.desired.pools)
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
        assert list(catalog_sync.difference(process.follower.catalog, share)) == []
        assert process.follower.catalog.suspects == share.suspects
        assert process.pins == {
            id_ for id_, homes in self.mesh.pins.pinned.items() if worker_id in homes
        }
