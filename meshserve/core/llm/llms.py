"""All LLMs: the events that happen to them, and the decisions that follow, in order.

No engine stops or goes to sleep before every gateway holds the engine's requests or sends them
elsewhere (docs/decisions/0030-drain-at-the-gateways-first.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import assert_never

from meshserve.core.llm import (
    llm_fleet,
    llm_reconcile,
    llm_state,
    public_reason,
    replica_state,
)
from meshserve.core.llm.replica_state import ReplicaMove, ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import commands, llm_events, llm_spec, snapshots

RETRY_S_MAX = 60.0
"""The longest Retry-After: OpenAI's clients ignore longer ones, or give up at once.

Source: `_calculate_retry_timeout` and `MAX_RETRY_AFTER_DELAY` of the Python client.
"""

DEFAULT_RETRY_S = 1.0
"""Retry-After for a name that no LLM has: such an LLM may be configured at any moment."""


class Llms:
    """All LLMs; commands go to the outbox `out`.

    `handle` applies one event; `reconcile` brings the replicas nearer to the desired state. Every
    held request is answered exactly once, by Admit or TurnAway, in the order of arrival.
    """

    def __init__(self, gateways: gateways.Gateways, out: commands.Outbox) -> None:
        self.fleet = llm_fleet.Fleet(gateways, out)
        self._out = out

    @property
    def llms(self) -> Mapping[str, llm_state.LlmRecord]:
        """All LLMs by name, including removed ones that still have replicas or a route."""
        return self.fleet.llms

    @property
    def is_empty(self) -> bool:
        """Whether no replica is left."""
        return not any(self.fleet.replicas())

    def routes(self) -> tuple[snapshots.LlmRoute, ...]:
        """Return the routes that gateways should apply."""
        return tuple(llm.route for llm in self.llms.values() if llm.route is not None)

    # What happens

    def handle(self, event: llm_events.LlmEvent, now_s: float) -> None:  # noqa: C901 - a case an event
        """Apply an event. Events of replicas that are unknown or removed change nothing."""
        match event:
            case llm_events.RequestHeld():
                self._receive(event, now_s)
            case llm_events.HeldRequestLeft():
                # The event names no LLM, and its ticket waits for one of them at most.
                for llm in self.llms.values():
                    llm.held.remove(event.ticket)
            case llm_events.ReplicaReady():
                self._started(event, now_s)
            case llm_events.ReplicaWoken():
                self._woken(event, now_s)
            case llm_events.ReplicaReported():
                self._reported(event.report, now_s)
            case llm_events.ReplicaLost():
                self._lost(event, now_s)
            case llm_events.ReplicaStopped():
                self._stopped(event.replica_id)
            case llm_events.ReplicaSlept():
                self._slept(event.replica_id)
            case llm_events.ReplicaUpdated():
                self._updated(event, now_s)
            case llm_events.CapacitySeen():
                self.fleet.bookings.observe(event.nodes)
            case _:
                assert_never(event)

    def _in_phase(self, replica_id: str, phase: ReplicaPhase) -> replica_state.ReplicaRecord | None:
        replica = self.fleet.find_replica(replica_id)
        return replica if replica is not None and replica.phase is phase else None

    def _started(self, event: llm_events.ReplicaReady, now_s: float) -> None:
        if self.fleet.find_replica(event.replica_id) is None:
            # An earlier controller started this replica, and nothing else would ever stop it.
            self._out.append(commands.StopReplica(event.replica_id))
            return
        replica = self._in_phase(event.replica_id, ReplicaPhase.STARTING)
        if replica is not None:
            replica.endpoint, replica.pid = event.endpoint, event.pid
            llm = self._come_up(replica, now_s)
            llm.starts.record(event.took_s)

    def _woken(self, event: llm_events.ReplicaWoken, now_s: float) -> None:
        replica = self._in_phase(event.replica_id, ReplicaPhase.WAKING)
        if replica is not None:
            llm = self._come_up(replica, now_s)
            llm.wakes.record(event.took_s)

    def _come_up(self, replica: replica_state.ReplicaRecord, now_s: float) -> llm_state.LlmRecord:
        llm = self.llms[llm_fleet.llm_name(replica.id)]
        replica.come_up(now_s)
        # The idle timeout begins now, because a start may take longer than it.
        llm.used_s = now_s
        self.fleet.bookings.mark_running(replica.holder)
        return llm

    def _reported(self, report: llm_spec.LlmReport, now_s: float) -> None:
        llm, replica = (
            self.fleet.find_llm_of(report.replica_id),
            self.fleet.find_replica(report.replica_id),
        )
        if llm is None or replica is None or replica.phase not in replica_state.SERVING:
            return
        before, replica.report = replica.report, report
        # Requests that came and went between two reports show only in their total.
        if replica.is_busy or (before is not None and report.requests > before.requests):
            llm.used_s = now_s
        replica.forgive(now_s)
        if report.stalled_s > replica.spec.stall_timeout_s:
            replica.fail(f"its requests got no token for {report.stalled_s:.0f} s", now_s)

    def _lost(self, event: llm_events.ReplicaLost, now_s: float) -> None:
        replica = self.fleet.find_replica(event.replica_id)
        # News of an earlier process of the same replica may come late.
        if (
            replica is not None
            and event.pid in (0, replica.pid)
            and replica.phase in replica_state.LOSABLE
        ):
            replica.fail(event.reason, now_s, is_permanent=event.is_permanent)

    def _stopped(self, replica_id: str) -> None:
        replica = self._in_phase(replica_id, ReplicaPhase.STOPPING)
        if replica is not None:
            self.fleet.remove_replica(replica, ReplicaMove.STOPPED)

    def _slept(self, replica_id: str) -> None:
        replica = self._in_phase(replica_id, ReplicaPhase.GOING_TO_SLEEP)
        if replica is not None:
            replica.move(ReplicaMove.SLEPT)

    def _updated(self, event: llm_events.ReplicaUpdated, now_s: float) -> None:
        replica = self.fleet.find_replica(event.replica_id)
        # An engine that was started anew meanwhile was started with a spec of its own.
        if replica is not None and replica.is_updating:
            replica.end_update(event.spec, event.reason, now_s)

    def attach(self, living: llm_spec.LivingReplica, now_s: float) -> None:
        """Take over a replica that already runs when the controller begins."""
        name = llm_fleet.llm_name(living.replica_id)
        llm = self.fleet.llms.setdefault(name, llm_state.LlmRecord(name, living.spec))
        replica = self.fleet.add_replica(llm, living.replica_id, living.spec)
        replica.phase = ReplicaPhase.ASLEEP if living.is_asleep else ReplicaPhase.READY
        replica.endpoint, replica.pid = living.endpoint, living.pid
        replica.plan = self.fleet.bookings.book_running(
            replica.holder, replica.id, living.spec.gpus, living.endpoint.node
        )
        replica.up_s = llm.used_s = now_s
        # The replicas that run count as desired until the first reconciliation.
        llm.desired_replicas = len(llm.replicas)
        if living.spec.share and not living.is_asleep:
            self.fleet.turns.setdefault(living.spec.share, name)

    # What follows

    def reconcile(self, wanted: Collection[llm_spec.LlmSpec], now_s: float) -> None:
        """Append the commands that bring all LLMs nearer to the wanted specs."""
        # A mesh of small models alone pays nothing for LLMs: this runs after every event.
        if not (wanted or self.llms):
            return
        self.fleet.set_wanted(wanted)
        self.fleet.assign_turns(now_s)
        llms = list(self.llms.values())
        for llm in llms:
            llm_reconcile.count_replicas(self.fleet, llm, now_s)
        # Surplus replicas of all LLMs stop before any starts: a start may need the GPUs they free.
        for llm in llms:
            llm_reconcile.stop_surplus(self.fleet, llm, now_s)
        for llm in sorted(llms, key=lambda llm: llm.start_rank):
            llm_reconcile.start_missing(self.fleet, llm, now_s)
        self._update_routes()
        # Last, because requests are admitted only if gateways know the routes of this moment.
        for llm in llms:
            self._answer_held(llm, now_s)
        self.fleet.forget_gone()

    def _update_routes(self) -> None:
        changed = [llm for llm in self.llms.values() if llm.route != llm.desired_route()]
        if changed:
            self.fleet.gateways.configure()
        for llm in changed:
            llm.route, llm.revision = llm.desired_route(), self.fleet.gateways.revision

    # Held requests

    def _receive(self, event: llm_events.RequestHeld, now_s: float) -> None:
        """Answer a request that has just come, or let it wait."""
        llm = self.fleet.find_served(event.name)
        if llm is None:
            reason = f"no model {event.name!r} is served"
            self._out.append(commands.TurnAway(event.ticket, reason, DEFAULT_RETRY_S))
            return
        llm.used_s = now_s
        if self.fleet.can_serve(llm):
            self._out.append(commands.Admit(event.ticket))
            return
        failure = llm.blocking_failure(now_s)
        refusal = failure.reason if failure else llm.held.refusal(llm.spec.held, event.size_bytes)
        if refusal:
            self._turn_away(llm, [event.ticket], refusal, now_s)
        else:
            llm.held.add(llm_state.HeldRequest(event.ticket, event.size_bytes, now_s))

    def _answer_held(self, llm: llm_state.LlmRecord, now_s: float) -> None:
        """Admit or turn away waiting requests, as far as that can be decided now."""
        active, limits = llm.active_replicas(), llm.spec.held
        if not llm.is_wanted:
            self._turn_away(llm, llm.held.take_all(), "it is not served any more", now_s)
        elif self.fleet.can_serve(llm):
            self._out.extend(commands.Admit(ticket) for ticket in llm.held.take_all())
        elif active and all(has_failed(replica) for replica in active):
            self._turn_away(llm, llm.held.take_all(), llm.reason, now_s)
        else:
            overdue = llm.held.take_overdue(limits, now_s)
            self._turn_away(llm, overdue, "it took too long to come up", now_s)
            surplus = llm.held.take_surplus(limits)
            self._turn_away(llm, surplus, "fewer may wait for it from now on", now_s)

    def _turn_away(
        self, llm: llm_state.LlmRecord, tickets: Iterable[str], reason: str, now_s: float
    ) -> None:
        for ticket in tickets:
            llm.turned_away += 1
            sentence = f"model {llm.name!r} is not ready: {public_reason.for_callers(reason)}"
            retry_after_s = min(self.fleet.expected_s(llm, now_s), RETRY_S_MAX)
            self._out.append(commands.TurnAway(ticket, sentence, retry_after_s))

    def check(self) -> None:
        """Assert the invariants of all LLMs."""
        self.fleet.check()


def has_failed(replica: replica_state.ReplicaRecord) -> bool:
    """Return whether requests that wait for the replica should hear of its failure."""
    return replica.phase is ReplicaPhase.FAILED and replica.retry.is_doubtful


def replica_of(event: llm_events.LlmEvent) -> str:
    """Return the id of the replica that the event tells of, "" if it tells of none."""
    match event:
        case llm_events.ReplicaReported():
            return event.report.replica_id
        case llm_events.RequestHeld() | llm_events.HeldRequestLeft() | llm_events.CapacitySeen():
            return ""
        case _:
            return event.replica_id
