"""All LLMs: who runs where, who sleeps, who waits. `handlers` take in what happens; `follow` says what is to be done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from meshserve.core.llm import (
    hold_admission,
    llm_fleet,
    llm_reconcile,
    llm_state,
    replica_lifecycle,
)
from meshserve.core.llm.replica_lifecycle import ReplicaMove, ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import commands, events, llm_spec, snapshots

Commands = Iterable[commands.Command]


class Llms:
    """Engines start, sleep and stop by commands. None stops or sleeps before every gateway holds its requests, or sends them elsewhere."""

    def __init__(self, gateways: gateways.Gateways) -> None:
        self.fleet = llm_fleet.Fleet(gateways)
        self.handlers: Mapping[type, Callable[[Any, float], Commands]] = {
            events.RequestHeld: self._request_held,
            events.HeldRequestLeft: self._held_left,
            events.ReplicaReady: self._ready,
            events.ReplicaReported: self._reported,
            events.ReplicaLost: self._lost,
            events.ReplicaStopped: self._stopped,
            events.ReplicaSlept: self._slept,
            events.ReplicaWoken: self._woken,
            events.CapacitySeen: self._room_seen,
        }

    @property
    def llms(self) -> Mapping[str, llm_state.LlmRecord]:
        """All LLMs by name, those too that are not wanted any more and not gone yet."""
        return self.fleet.llms

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs."""
        return not any(self.fleet.replicas())

    def routes(self) -> tuple[snapshots.LlmRoute, ...]:
        """What gateways are to know."""
        return tuple(each.route for each in self.llms.values() if each.route is not None)

    def attach(self, living: llm_spec.LivingReplica, now_s: float) -> None:
        """Take over a replica that runs already."""
        name = llm_fleet.name_of(living.replica_id)
        each = self.fleet.llms.setdefault(name, llm_state.LlmRecord(name, living.spec))
        replica = self.fleet.add(each, living.replica_id, living.spec)
        replica.state = ReplicaPhase.ASLEEP if living.is_asleep else ReplicaPhase.READY
        replica.endpoint, replica.pid = living.endpoint, living.pid
        replica.plan = self.fleet.room.attach(
            replica.holder, replica.id, living.spec.gpus, living.endpoint.node
        )
        replica.up_s = each.used_s = now_s
        each.count = len(each.replicas)
        if living.spec.share and not living.is_asleep:
            self.fleet.turns.setdefault(living.spec.share, name)

    def follow(
        self, wanted: Iterable[llm_spec.LlmSpec], now_s: float
    ) -> Iterator[commands.Command]:
        """What brings all LLMs nearer to these. What is in the way goes before anything comes."""
        fleet = self.fleet
        fleet.want(wanted)
        fleet.take_turns(now_s)
        for each in fleet.llms.values():
            llm_reconcile.count(fleet, each, now_s)
        for each in fleet.llms.values():
            yield from llm_reconcile.shed(fleet, each)
        for each in fleet.llms.values():
            yield from llm_reconcile.raise_(fleet, each, now_s)
        yield from self._show()
        for each in fleet.llms.values():
            yield from hold_admission.follow(fleet, each, now_s)
        fleet.forget_gone()

    def _show(self) -> Iterator[commands.Command]:
        changed = [each for each in self.llms.values() if each.route != each.wanted_route()]
        if not changed:
            return
        yield from self.fleet.gates.configure()
        for each in changed:
            each.route, each.revision = each.wanted_route(), self.fleet.gates.revision

    def _request_held(self, event: events.RequestHeld, now_s: float) -> Commands:
        return hold_admission.arrive(self.fleet, event, now_s)

    def _held_left(self, event: events.HeldRequestLeft, _: float) -> Commands:
        for each in self.llms.values():
            each.held.leave(event.ticket)
        return ()

    def _ready(self, event: events.ReplicaReady, now_s: float) -> Commands:
        each, replica = self.fleet.of(event.replica_id), self.fleet.replica(event.replica_id)
        if each is None or replica is None:
            return (commands.StopReplica(event.replica_id),)
        if replica.state is ReplicaPhase.STARTING:
            each.starts.took(event.took_s)
            replica.endpoint, replica.pid = event.endpoint, event.pid
            self._came_up(each, replica, now_s)
        return ()

    def _woken(self, event: events.ReplicaWoken, now_s: float) -> Commands:
        each, replica = self.fleet.of(event.replica_id), self.fleet.replica(event.replica_id)
        if each is not None and replica is not None and replica.state is ReplicaPhase.WAKING:
            each.wakes.took(event.took_s)
            self._came_up(each, replica, now_s)
        return ()

    def _came_up(
        self, each: llm_state.LlmRecord, replica: llm_state.ReplicaRecord, now_s: float
    ) -> None:
        replica.move(ReplicaMove.ANSWERED)
        replica.up_s = each.used_s = now_s
        replica.reason, replica.trouble.reason, replica.report = "", "", None
        self.fleet.room.is_up(replica.holder)

    def _reported(self, event: events.ReplicaReported, now_s: float) -> Commands:
        each, replica = (
            self.fleet.of(event.report.replica_id),
            self.fleet.replica(event.report.replica_id),
        )
        if each is None or replica is None or replica.state not in replica_lifecycle.SERVING:
            return ()
        before, replica.report = replica.report, event.report
        if replica.is_busy or (before is not None and event.report.requests > before.requests):
            each.used_s = now_s
        replica.calm(now_s)
        if event.report.stalled_s > replica.spec.stall_timeout_s:
            replica.fail(f"its requests got no token for {event.report.stalled_s:.0f} s", now_s)
        return ()

    def _lost(self, event: events.ReplicaLost, now_s: float) -> Commands:
        replica = self.fleet.replica(event.replica_id)
        if (
            replica is not None
            and event.pid in (0, replica.pid)
            and replica.state in replica_lifecycle.LOSABLE
        ):
            replica.fail(event.reason, now_s)
        return ()

    def _stopped(self, event: events.ReplicaStopped, _: float) -> Commands:
        replica = self.fleet.replica(event.replica_id)
        if replica is not None and replica.state is ReplicaPhase.STOPPING:
            self.fleet.remove(replica, ReplicaMove.STOPPED)
        return ()

    def _slept(self, event: events.ReplicaSlept, _: float) -> Commands:
        replica = self.fleet.replica(event.replica_id)
        if replica is not None and replica.state is ReplicaPhase.DROWSING:
            replica.move(ReplicaMove.SLEPT)
        return ()

    def _room_seen(self, event: events.CapacitySeen, _: float) -> Commands:
        self.fleet.room.seen(event.nodes)
        return ()

    def check(self) -> None:
        """State what always holds."""
        self.fleet.check()
        for each in self.llms.values():
            each.held.check(each.spec.held)
            assert each.is_wanted or not each.held
