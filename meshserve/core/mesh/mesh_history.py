"""Write the events of a mesh's log: after each step, from what came in and what it led to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from meshserve.core.llm import llm_fleet, llm_state, replica_state
from meshserve.core.mesh import event_log, hot_models, pool_sizes
from meshserve.core.processes import workers
from meshserve.core.processes.reconcile import ProcessState
from meshserve.core.values import (
    commands,
    containment,
    events,
    gateway_events,
    llm_events,
    mesh_events,
    reports,
)

WORDS_MAX = 20
"""Lines of one change that are told; a repository may declare thousands of models at once."""


class MeshHistory:
    """The writer of the event log. It reads the parts of the mesh and changes none of them."""

    def __init__(
        self,
        workers_: workers.Workers,
        hot_models_: hot_models.HotModels,
        pool_sizes_: pool_sizes.PoolSizes,
        fleet: llm_fleet.Fleet,
    ) -> None:
        self.log = event_log.EventLog()
        self._workers, self._fleet = workers_, fleet
        self._hot_models, self._pool_sizes = hot_models_, pool_sizes_
        self._now_s = 0.0
        self._saving = commands.SaveChanges(())
        self._ready_pids: dict[str, int] = {}
        self._spread: dict[str, tuple[str, ...]] = {}
        self._replicas: dict[str, int] = {}
        self._pool_changes: dict[str, int] = {}
        self._lost: dict[str, tuple[int, int]] = {}
        # By type, because most events and commands are no news, and there are thousands a second.
        self._of_event: dict[type, Callable[[Any], None]] = {
            events.WorkerReported: self._worker_reported,
            events.WorkerStarted: self._worker_started,
            events.WorkerSynced: self._worker_synced,
            events.ChangesSaved: self._changes_saved,
            events.DrainRequested: self._drain_requested,
            events.Ticked: self._ticked,
            llm_events.ReplicaReady: self._replica_ready,
            llm_events.ReplicaWoken: self._replica_ready,
            llm_events.ReplicaLost: self._replica_lost,
            gateway_events.GatewayReported: self._gateway_reported,
        }
        self._of_command: dict[type, Callable[[Any], None]] = {
            commands.SaveChanges: self._saving_ordered,
            commands.Unwatch: self._unwatched,
            commands.StopWorker: self._worker_stopping,
            commands.StopGateway: self._gateway_stopping,
            commands.StartReplica: self._replica_started,
            commands.StopReplica: self._replica_stopping,
            commands.SleepReplica: self._replica_stopping,
            commands.ConfigureGateway: self._gateway_configured,
        }
        self._ready_gateways: set[str] = set()

    def record(
        self, event: events.Event, following: Iterable[commands.Command], now_s: float
    ) -> None:
        """Log what is news of an event that has been handled, and of its commands."""
        self._now_s = now_s
        note = self._of_event.get(type(event))
        if note is not None:
            note(event)
        for command in following:
            note = self._of_command.get(type(command))
            if note is not None:
                note(command)

    def _add(self, kind: mesh_events.EventKind, reason: str = "", **fields: Any) -> None:
        self.log.add(mesh_events.MeshEvent(self._now_s, kind, reason, **fields))

    # Workers and their copies

    def _worker_reported(self, event: events.WorkerReported) -> None:
        worker = self._workers.running(event.report.worker_id)
        if worker is None or not event.report.events or worker.pid != event.report.pid:
            return
        new = [news for news in event.report.events if news.number > worker.last_event]
        if new:
            # A new controller's first report begins where the worker's memory does.
            self.log.missed += new[0].number - worker.last_event - 1 if worker.last_event else 0
            worker.last_event = new[-1].number
        for copy_event in new:
            self._copy_event(event.report, copy_event)

    def _copy_event(self, report: reports.WorkerReport, event: mesh_events.CopyEvent) -> None:
        self.log.add(
            mesh_events.MeshEvent(
                self._now_s - event.ago_s,
                event.kind,
                event.reason,
                event.id.name,
                event.id.version,
                report.worker_id,
                report.node,
                took_s=event.took_s,
            )
        )

    def _node(self, worker_id: str) -> str:
        worker = self._workers.records.get(worker_id)
        return worker.endpoint.node if worker is not None and worker.endpoint else ""

    def _worker_started(self, event: events.WorkerStarted) -> None:
        if self._workers.running(event.worker_id) is not None:
            self._process("started", event.worker_id, f"process {event.pid}")

    def _worker_synced(self, event: events.WorkerSynced) -> None:
        worker = self._workers.running(event.worker_id)
        is_ready = worker is not None and worker.state is ProcessState.READY
        if worker is None or not is_ready or self._ready_pids.get(worker.id) == worker.pid:
            return
        self._ready_pids[worker.id] = worker.pid
        self._process("ready", worker.id, f"process {worker.pid} has its catalog")

    def _worker_stopping(self, command: commands.StopWorker) -> None:
        reason = command.reason or self._why_unwanted(command.worker_id)
        self._process("stopping", command.worker_id, reason)

    def _why_unwanted(self, worker_id: str) -> str:
        pool, _, number = worker_id.rpartition("-")
        size = self._pool_sizes.sizes.get(pool)
        is_surplus = size is not None and number.isdecimal() and int(number) >= size.count
        if size is not None and is_surplus and size.count < size.before:
            return f"its pool shrinks to {size.count}: {size.reason}"
        return "it is not wanted any more, or its settings have changed"

    def _process(self, kind: mesh_events.EventKind, worker_id: str, reason: str) -> None:
        self._add(kind, reason, process=worker_id, node=self._node(worker_id))

    def _unwatched(self, command: commands.Unwatch) -> None:
        if not command.reason or command.kind == "replica":
            return
        if command.kind == "worker":
            self._process("lost", command.id, command.reason)
        else:
            self._ready_gateways.discard(command.id)
            self._add("lost", command.reason, process="gateway", node=command.id)

    # Gateways

    def _gateway_reported(self, event: gateway_events.GatewayReported) -> None:
        node = event.report.node
        if node not in self._ready_gateways:
            self._ready_gateways.add(node)
            self._add("ready", f"it listens on {event.report.listen}", process="gateway", node=node)

    def _gateway_stopping(self, command: commands.StopGateway) -> None:
        self._ready_gateways.discard(command.node)
        self._add("stopping", process="gateway", node=command.node)

    def _gateway_configured(self, _: commands.ConfigureGateway) -> None:
        # Gateways take a new configuration whenever a busy model's workers change.
        spread = {
            model.id.name: model.routed
            for model in self._hot_models.models.values()
            if model.routed
        }
        if spread == self._spread:
            return
        for name in sorted(spread.keys() | self._spread.keys()):
            before, after = self._spread.get(name, ()), spread.get(name, ())
            if before != after:
                where = f"it is on {', '.join(after)}" if after else "it is at its home alone again"
                busy = sum(self._hot_models.models[name].loads.values()) if after else 0.0
                load = f", for it keeps {busy:.1f} workers busy" if after else ""
                self._add("spread", where + load, model=name)
        self._spread = spread

    # Changes

    def _saving_ordered(self, command: commands.SaveChanges) -> None:
        # One at a time is saved, so this is the one that ChangesSaved tells of.
        self._saving = command

    def _changes_saved(self, event: events.ChangesSaved) -> None:
        kind: mesh_events.EventKind = "changed"
        if any(isinstance(change, containment.CopyQuarantined) for change in event.changes):
            kind = "quarantined"
        elif any(isinstance(change, containment.QuarantineEnded) for change in event.changes):
            kind = "released"
        saving, self._saving = self._saving, commands.SaveChanges(())
        lines = list(saving.words)
        if len(lines) > WORDS_MAX:
            more = len(lines) - WORDS_MAX
            lines = [*lines[:WORDS_MAX], f"and {more} more changes of the same request"]
        for line in lines:
            self._add(kind, line, by=saving.by, **_subject(line))

    def _drain_requested(self, _: events.DrainRequested) -> None:
        self._add("draining", "all processes finish their requests and end")

    # Numbers of processes

    def _ticked(self, _: events.Ticked) -> None:
        for name, size in self._pool_sizes.sizes.items():
            before, self._pool_changes[name] = self._pool_changes.get(name, 0), size.changes
            # A pool that follows its load again after a fixed size counts its changes anew.
            if size.changes not in (0, before):
                words = f"pool {name}: {size.before} → {size.count} workers: {size.reason}"
                self._add("scaled", words, pool=name)
        for llm in self._fleet.llms.values():
            before = self._replicas.get(llm.name, 0)
            if llm.desired_replicas != before:
                self._replicas[llm.name] = llm.desired_replicas
                reason = _scale_reason(llm, before, self._now_s)
                self._add(
                    "scaled",
                    f"{before} → {llm.desired_replicas} replicas: {reason}",
                    model=llm.name,
                )

    def _replica(
        self, kind: mesh_events.EventKind, id_: str, reason: str, took_s: float = 0.0
    ) -> None:
        replica = self._fleet.find_replica(id_)
        node = replica.endpoint.node if replica and replica.endpoint else ""
        name = llm_fleet.llm_name(id_)
        self._add(kind, reason, model=name, process=id_, node=node, took_s=took_s)

    def _replica_started(self, command: commands.StartReplica) -> None:
        replica = self._fleet.find_replica(command.replica_id)
        again = f"again, after: {replica.retry.reason}" if replica and replica.retry.reason else ""
        self._replica("started", command.replica_id, again)

    def _replica_stopping(self, command: commands.StopReplica | commands.SleepReplica) -> None:
        sleeps = isinstance(command, commands.SleepReplica)
        self._replica("stopping", command.replica_id, "it goes to sleep" if sleeps else "")

    def _replica_ready(self, event: llm_events.ReplicaReady | llm_events.ReplicaWoken) -> None:
        replica = self._fleet.find_replica(event.replica_id)
        if replica is not None and replica.phase is replica_state.ReplicaPhase.READY:
            self._replica("ready", event.replica_id, f"process {replica.pid}", event.took_s)

    def _replica_lost(self, event: llm_events.ReplicaLost) -> None:
        replica = self._fleet.find_replica(event.replica_id)
        if replica is None:
            return
        # Two tasks tell of an end; the second one finds the same failure of the same start.
        loss = (replica.starts, replica.retry.failures)
        if self._lost.get(replica.id) != loss and replica.retry.cause == event.reason:
            self._lost[replica.id] = loss
            self._replica("lost", replica.id, replica.retry.reason)


def _subject(line: str) -> dict[str, str]:
    """Return the model or pool of a line such as `model iris:1 added`, nothing if it has none."""
    noun, _, rest = line.partition(" ")
    subject = rest.partition(" ")[0]
    if noun == "pool":
        return {"pool": subject.removesuffix(":")}
    if noun != "model":
        return {}
    name, _, version = subject.rpartition(":")
    return {"model": name, "version": version}


def _scale_reason(llm: llm_state.LlmRecord, before: int, now_s: float) -> str:
    spec = llm.spec
    if llm.desired_replicas > before:
        if llm.held:
            return f"{len(llm.held)} requests wait for it"
        if before < spec.replicas_min:
            return f"replicas.min is {spec.replicas_min}"
        return "requests have waited inside its engines" if before else "it is used"
    if not llm.is_wanted:
        return "it was removed"
    if not llm.is_used(now_s):
        return f"no request came for {spec.idle_timeout_s:g} s"
    if spec.share and not llm.desired_replicas:
        return f"another LLM of group {spec.share} has its turn"
    return "its replicas had too little to do"
