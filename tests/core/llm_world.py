"""A world with LLM engines: GPUs, processes that start, sleep and die, and held requests."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

from meshserve.core.values import commands, desired, events, llm_events, llm_spec, model, snapshots
from tests.core import world

NODE = world.NODE
START_S = 30.0
CORES = 16
WAKE_S = 3.0


def spec(name: str, **fields: Any) -> llm_spec.LlmSpec:
    """Return an LLM whose URI has its name."""
    return llm_spec.LlmSpec(name, f"/models/{name}", **fields)


def holder_of(replica_id: str, spec: llm_spec.LlmSpec) -> str:
    """Return the name in which the replica has its GPUs."""
    return spec.share or replica_id


@dataclass
class Engine:
    """One engine's process. `running` and `waiting` are its requests now."""

    pid: int
    spec: llm_spec.LlmSpec
    is_awake: bool = True
    running: int = 0
    waiting: int = 0
    requests: int = 0
    is_stalled: bool = False
    can_change_adapters: bool = False

    def __post_init__(self) -> None:
        # As vLLM, which prepares for adapters only if it is started with some.
        self.can_change_adapters = bool(self.spec.adapters)

    def report(self, replica_id: str, **more: Any) -> llm_spec.LlmReport:
        counts = (self.running, self.waiting, self.requests)
        report = llm_spec.LlmReport(replica_id, *counts, **more)
        return report._replace(can_change_adapters=self.can_change_adapters)


class LlmWorld(world.World):
    """A world that also performs commands to replicas.

    It checks what the mesh promises about replicas and about held requests.
    """

    def __init__(self, **gpus: int) -> None:
        self.gpus = gpus or {NODE: 4}
        self.engines: dict[str, Engine] = {}
        self.holders: dict[str, str] = {}
        self.taken: dict[str, dict[str, int]] = {}
        self.others: Counter[str] = Counter()
        self.served: dict[str, snapshots.GatewaySnapshot] = {}
        self.waiting: dict[str, str] = {}
        self.answers: dict[str, commands.HeldCommand] = {}
        self.failing_starts: set[str] = set()
        self._tickets = itertools.count(1)
        super().__init__()
        self.see_capacity()

    # Commands

    def _queue(self, command: commands.Command) -> None:
        match command:
            case commands.StartReplica():
                self._check_start(command)
                self.lanes[f"replica {command.replica_id}"].append(command)
            case commands.StopReplica() | commands.SleepReplica():
                self._check_gets_no_requests(command.replica_id)
                self.lanes[f"replica {command.replica_id}"].append(command)
            case commands.WakeReplica() | commands.UpdateReplica():
                self.lanes[f"replica {command.replica_id}"].append(command)
            case _:
                super()._queue(command)

    def _answered(self, command: commands.HeldCommand) -> None:
        assert command.ticket not in self.answers, f"{command.ticket} is answered twice"
        name = self.waiting.pop(command.ticket)
        self.answers[command.ticket] = command
        if isinstance(command, commands.TurnAway):
            assert command.retry_after_s > 0
            return
        for node in [
            gate.node
            for gate in self.mesh.gateways.records.values()
            if gate.state in ("starting", "ready")
        ]:
            members = next(route.members for route in self.served[node].llms if name in route.names)
            assert members, f"{node} knows no replica for {command.ticket}"

    def _check_start(self, command: commands.StartReplica) -> None:
        llm = self.mesh.llms.llms[command.replica_id.rpartition("/")[0]]
        most = max(llm.spec.replicas_max, llm.spec.replicas_min)
        fleet, active = self.mesh.llms.fleet, llm.active_replicas()
        extra = any(fleet.is_outdated(llm, replica) for replica in active)
        assert len(active) <= llm.desired_replicas + extra
        assert llm.desired_replicas <= most
        group = [
            other
            for other in self.mesh.llms.fleet.replicas()
            if command.spec.share and other.spec.share == command.spec.share
        ]
        assert {other.phase.value for other in group if other.id != command.replica_id} <= {
            "asleep",
            "waiting",
        }

    def _check_gets_no_requests(self, replica_id: str) -> None:
        for node in self.gateways:
            for route in self.served[node].llms if node in self.served else ():
                ids = {member.worker_id for member in route.members}
                assert replica_id not in ids or route.is_held or not self._is_good(replica_id), (
                    f"{node} sends requests to {replica_id}"
                )

    def _is_good(self, replica_id: str) -> bool:
        engine = self.engines.get(replica_id)
        return engine is not None and not engine.is_stalled

    # Performing commands

    def step(self, lane: str, *, is_lost: bool = False) -> None:
        command = self.lanes[lane][0]
        if not lane.startswith("replica "):
            super().step(lane, is_lost=is_lost)
            return
        self.lanes[lane].popleft()
        match command:
            case commands.StartReplica():
                self._start_engine(
                    command, is_failing=is_lost or command.spec.name in self.failing_starts
                )
            case commands.StopReplica():
                self._stop_engine(command.replica_id)
            case commands.UpdateReplica():
                self._update_engine(command, is_failing=is_lost)
            case commands.SleepReplica() | commands.WakeReplica():
                self._turn_engine(command, is_failing=is_lost)

    def _configured(self, node: str) -> None:
        if node in self.gateways:
            self.served[node] = self.mesh.gateway_snapshot(node)
        super()._configured(node)

    def _start_engine(self, command: commands.StartReplica, *, is_failing: bool) -> None:
        id_ = command.replica_id
        self.engines.pop(id_, None)
        self._release(id_)
        self._take(id_, command)
        if is_failing:
            self.feed(llm_events.ReplicaLost(id_, "it can't be loaded"))
            return
        self.engines[id_] = engine = Engine(next(self._pids), command.spec)
        self._check_awake(command.spec.share)
        able = [name for name in self.node_names if name not in command.plan.avoided]
        endpoint = model.Endpoint(command.plan.node or able[0], "127.0.0.1", engine.pid)
        self.feed(llm_events.ReplicaReady(id_, endpoint, engine.pid, START_S))

    def _take(self, id_: str, command: commands.StartReplica) -> None:
        holder = holder_of(id_, command.spec)
        need = sum(command.plan.bundles)
        self.holders[id_] = holder
        if holder in self.taken:
            assert sum(self.taken[holder].values()) == need
        elif need:
            self.taken[holder] = self._allocated(command.plan)

    def _allocated(self, plan: llm_spec.ReplicaPlan) -> dict[str, int]:
        free = self.free()
        if plan.node:
            assert free[plan.node] >= sum(plan.bundles), f"{plan} is over what is free: {free}"
            return {plan.node: sum(plan.bundles)}
        takes: Counter[str] = Counter()
        for bundle in plan.bundles:
            node = max(free, key=lambda node: (free[node] - takes[node], node))
            takes[node] += bundle
            assert takes[node] <= free[node]
        return dict(takes)

    def free(self) -> dict[str, int]:
        held = Counter(self.others)
        for takes in self.taken.values():
            held.update(takes)
        return {node: count - held[node] for node, count in self.gpus.items()}

    def _release(self, id_: str) -> None:
        holder = self.holders.pop(id_, "")
        if holder not in self.holders.values():
            self.taken.pop(holder, None)

    def _stop_engine(self, id_: str) -> None:
        self.engines.pop(id_, None)
        self._release(id_)
        self.feed(llm_events.ReplicaStopped(id_))

    def _update_engine(self, command: commands.UpdateReplica, *, is_failing: bool) -> None:
        engine = self.engines.get(command.replica_id)
        if engine is None:
            reason = "it has ended"
        else:
            assert engine.can_change_adapters or engine.spec.adapters == command.spec.adapters
            reason = "no such adapter" if is_failing else ""
            engine.spec = engine.spec if is_failing else command.spec
        self.feed(llm_events.ReplicaUpdated(command.replica_id, command.spec, reason))

    def _turn_engine(
        self, command: commands.SleepReplica | commands.WakeReplica, *, is_failing: bool
    ) -> None:
        id_, is_waking = command.replica_id, isinstance(command, commands.WakeReplica)
        engine = self.engines.get(id_)
        if engine is None:
            return
        if is_failing:
            self.kill_engine(id_)
            return
        engine.is_awake, engine.running, engine.waiting = is_waking, 0, 0
        self._check_awake(engine.spec.share)
        self.feed(
            llm_events.ReplicaWoken(id_, WAKE_S) if is_waking else llm_events.ReplicaSlept(id_)
        )

    def _check_awake(self, share: str) -> None:
        awake = [
            id_
            for id_, engine in self.engines.items()
            if share and engine.spec.share == share and engine.is_awake
        ]
        assert len(awake) <= 1, f"{awake} of {share} are awake"

    # Events

    def ask(self, name: str, size_bytes: int = 10) -> str:
        """Hold a request for an LLM at a gateway, and return its ticket."""
        ticket = f"t{next(self._tickets)}"
        self.waiting[ticket] = name
        self.feed(llm_events.RequestHeld(ticket, name, size_bytes))
        return ticket

    def leave(self, ticket: str) -> None:
        """Have the client of a held request leave."""
        self.waiting.pop(ticket, None)
        self.feed(llm_events.HeldRequestLeft(ticket))

    def see_capacity(self, *, has_replicas: bool = True) -> None:
        """Report the GPUs of all nodes, as if no replica were known unless `has_replicas`."""
        free = self.free()
        nodes = (
            llm_spec.NodeCapacity(
                node,
                count,
                free[node],
                cores=CORES,
                replicas=tuple(sorted(self.holders)) if has_replicas else (),
            )
            for node, count in self.gpus.items()
        )
        self.feed(llm_events.CapacitySeen(tuple(nodes)))

    def report(self, **more: Any) -> None:
        """Have every engine that is awake report."""
        for id_, engine in list(self.engines.items()):
            engine.is_stalled |= more.get("stalled_s", 0.0) > engine.spec.stall_timeout_s
            if engine.is_awake:
                self.feed(llm_events.ReplicaReported(engine.report(id_, **more)))

    def kill_engine(self, id_: str) -> None:
        """End a process; its GPUs stay taken until it is started again or stopped."""
        engine = self.engines.pop(id_)
        self.feed(llm_events.ReplicaLost(id_, "killed", engine.pid))

    def perform_all(self) -> None:
        super().perform_all()
        self.see_capacity()
        while any(self.lanes.values()):
            super().perform_all()
            self.see_capacity()

    def pass_time(self, seconds: float, *, step_s: float = 1.0) -> None:
        """Let time go by, with all commands performed at once and reports each second."""
        for _ in range(int(seconds / step_s)):
            self.perform_all()
            self.report()
            self.tick(step_s)
        self.perform_all()

    def settle(self) -> None:
        """Have everything succeed and all requests end, until no command is left."""
        self.failing_loads, self.failing_starts = set(), set()
        for engine in self.engines.values():
            engine.running = engine.waiting = 0
        self.pass_time(1500.0, step_s=31.0)

    def apply_llms(self, *specs: llm_spec.LlmSpec) -> tuple[str, ...]:
        """Configure these LLMs, beside a pool, and perform no command yet."""
        return self.feed(
            events.ConfigApplied(desired.Desired(pools=(world.pool(workers=1),), llms=specs))
        )

    # Checks

    def check(self) -> None:
        super().check()
        held = {request.ticket for llm in self.mesh.llms.llms.values() for request in llm.held}
        assert held == set(self.waiting)

    def check_engines_settled(self) -> None:
        """Assert that no request waits and that each LLM has its replicas, or too few GPUs."""
        assert self.waiting == {}
        wanted = {spec.name: spec for spec in self.mesh.catalog.desired.llms}
        assert {engine.spec.name for engine in self.engines.values()} <= set(wanted)
        for name, llm in self.mesh.llms.llms.items():
            running = [engine for engine in self.engines.values() if engine.spec.name == name]
            assert {engine.spec.uri for engine in running} <= {wanted[name].uri}
            assert {engine.spec.adapters for engine in running} <= {wanted[name].adapters}
            waiting = [
                replica for replica in llm.active_replicas() if replica.phase.value == "waiting"
            ]
            assert len(running) + len(waiting) == llm.desired_replicas, f"{llm} has {running}"
            assert all("GPU" in replica.reason for replica in waiting), f"{llm} waits for nothing"
