"""The number of replicas of one LLM, and the next step of each of them.

Each function looks at the state of the fleet, changes it, and appends commands to its outbox.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import NamedTuple

from meshserve.core.llm import llm_fleet, llm_state, replica_state, rolling_update
from meshserve.core.llm.replica_state import ReplicaMove, ReplicaPhase
from meshserve.core.values import commands, llm_spec

SCALE_UP_AFTER_S = 10.0
"""How long requests must wait inside the engines before another engine is started."""

SCALE_DOWN_AFTER_S = 120.0
"""How long requests must be fewer than replicas before one stops: about as long as a start."""


class LlmLoad(NamedTuple):
    """The load of an LLM with `desired` replicas so far, of which `ready` are ready.

    `overloaded_s` and `quiet_s` say for how long the replicas have had too much or too little to
    do. `is_used` is false if no request has come within the idle timeout.
    """

    desired: int
    ready: int
    overloaded_s: float = 0.0
    quiet_s: float = 0.0
    is_used: bool = True


def desired_replicas(spec: llm_spec.LlmSpec, load: LlmLoad) -> int:
    """Return the number of replicas to have from now on: at most one more or one fewer.

    The number stays within the bounds of the spec; an unused LLM has `replicas_min`.
    """
    least = max(spec.replicas_min, 1 if load.is_used else 0)
    if not load.is_used:
        return least
    most = max(spec.replicas_max, least)
    count = min(max(load.desired, least), most)
    # Before all desired replicas share the load, it can't show whether one more is needed.
    if load.overloaded_s >= SCALE_UP_AFTER_S and load.ready >= count:
        return min(count + 1, most)
    if load.quiet_s >= SCALE_DOWN_AFTER_S:
        return max(count - 1, least)
    return count


def is_overloaded(reports: Collection[llm_spec.LlmReport]) -> bool:
    """Return whether requests wait inside the engines."""
    return any(report.waiting for report in reports)


def is_quiet(reports: Collection[llm_spec.LlmReport]) -> bool:
    """Return whether each request could have an engine to itself with one engine fewer."""
    return not is_overloaded(reports) and sum(report.running for report in reports) < len(reports)


def count_replicas(fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord, now_s: float) -> None:
    """Decide how many replicas the LLM should have, and note since when its load is unusual."""
    before = llm.desired_replicas
    llm.desired_replicas = _desired_now(fleet, llm, now_s)
    reports = llm.reports()
    # A new number of replicas changes the load of each, so both times start again.
    is_steady = before == llm.desired_replicas and bool(reports)
    llm.overloaded_s = _since(llm.overloaded_s, now_s, is_on=is_steady and is_overloaded(reports))
    llm.quiet_s = _since(llm.quiet_s, now_s, is_on=is_steady and is_quiet(reports))


def _since(since_s: float | None, now_s: float, *, is_on: bool) -> float | None:
    if not is_on:
        return None
    return now_s if since_s is None else since_s


def _desired_now(fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord, now_s: float) -> int:
    if not llm.is_wanted:
        return 0
    is_used = llm.is_used(now_s)
    if llm.spec.share:
        # A member of a group starts when it has its turn, and after it sleeps instead of stopping.
        may_run = bool(llm.active_replicas()) or fleet.has_turn(llm)
        return 1 if may_run and (is_used or llm.spec.replicas_min) else 0
    overloaded_s, quiet_s = (
        0.0 if since_s is None else now_s - since_s for since_s in (llm.overloaded_s, llm.quiet_s)
    )
    ready = len(llm.replicas_in({ReplicaPhase.READY}))
    load = LlmLoad(llm.desired_replicas, ready, overloaded_s, quiet_s, is_used)
    return desired_replicas(llm.spec, load)


def stop_surplus(fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord, now_s: float) -> None:
    """Drain, put to sleep or stop replicas that are surplus, outdated, or without the turn.

    Others are told what has changed for them.
    Draining replicas that are needed after all serve again.
    """
    active = llm.active_replicas()
    outdated = {replica.id for replica in active if fleet.is_outdated(llm, replica)}
    step = rolling_update.next_step(fleet, llm)
    going = step.going | _surplus(llm, active, outdated)
    for replica in active:
        if replica.id in going:
            if replica.id in outdated and step.shortage and replica.phase is ReplicaPhase.READY:
                replica.reason = f"its replacement starts after it has gone: {step.shortage}"
            _stop(fleet, llm, replica)
        elif not fleet.has_turn(llm):
            _make_way(fleet, llm, replica)
        else:
            if replica.id not in outdated:
                _update(fleet, llm, replica, now_s)
            if replica.phase is ReplicaPhase.DRAINING:
                replica.move(ReplicaMove.KEPT)
                replica.reason = ""


def _surplus(
    llm: llm_state.LlmRecord,
    active: Sequence[replica_state.ReplicaRecord],
    outdated: Collection[str],
) -> frozenset[str]:
    """Return the replicas over the desired number, apart from those that others replace."""
    desired = llm.desired_replicas
    current = [replica.id for replica in active if replica.id not in outdated]
    if not desired:
        return frozenset(replica.id for replica in active)
    if len(current) >= desired:
        return frozenset(current[desired:])
    # Fewer are desired than before, and some of those that are left are outdated.
    return frozenset(replica.id for replica in active[desired + 1 :])


def _update(
    fleet: llm_fleet.Fleet,
    llm: llm_state.LlmRecord,
    replica: replica_state.ReplicaRecord,
    now_s: float,
) -> None:
    """Let the replica follow the LLM's spec without a restart."""
    own, spec = replica.spec, llm.spec
    # New limits concern the mesh alone; of the rest the engine must be told.
    replica.spec = dataclasses.replace(
        spec, adapters=own.adapters, stall_timeout_s=own.stall_timeout_s, weights=own.weights
    )
    has_all = own.has_same_adapters(spec) and own.stall_timeout_s == spec.stall_timeout_s
    if has_all or replica.is_updating or replica.phase is not ReplicaPhase.READY:
        return
    is_new = spec != replica.update
    # Before its first report it is not known whether it takes other adapters.
    if replica.report is not None and (is_new or replica.update_retry.is_due(now_s)):
        replica.begin_update(spec)
        fleet.out.append(commands.UpdateReplica(replica.id, spec))


def _stop(
    fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord, replica: replica_state.ReplicaRecord
) -> None:
    match replica.phase:
        case ReplicaPhase.READY:
            replica.move(ReplicaMove.DRAIN_ORDERED)
        case ReplicaPhase.WAITING:
            fleet.remove_replica(replica, ReplicaMove.GIVEN_UP)
        case ReplicaPhase.GOING_TO_SLEEP:
            pass  # An engine can't be stopped while it goes to sleep, which takes seconds.
        case ReplicaPhase.DRAINING if not fleet.is_diverted(llm):
            pass  # Gateways still send requests to it.
        case _:
            # Failures in a row still count after a stop and a new start.
            if replica.phase is not ReplicaPhase.FAILED:
                llm.retries.pop(replica.id, None)
            replica.move(ReplicaMove.STOP_ORDERED)
            fleet.out.append(commands.StopReplica(replica.id))


def _make_way(
    fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord, replica: replica_state.ReplicaRecord
) -> None:
    """Free the GPUs of a replica whose group has given the turn to another LLM."""
    match replica.phase:
        case ReplicaPhase.READY:
            replica.move(ReplicaMove.DRAIN_ORDERED)
        case ReplicaPhase.DRAINING if fleet.is_diverted(llm):
            replica.move(ReplicaMove.SLEEP_ORDERED)
            fleet.out.append(commands.SleepReplica(replica.id, llm.spec.sleep_level))
        case ReplicaPhase.FAILED | ReplicaPhase.WAITING:
            # A failed engine may still hold memory of the GPUs, which the other LLM needs.
            _stop(fleet, llm, replica)


def start_missing(fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord, now_s: float) -> None:
    """Start missing and failed replicas and wake sleeping ones, if the LLM has its turn."""
    if not fleet.has_turn(llm):
        return
    for _ in range(_missing(fleet, llm)):
        fleet.add_replica(llm, llm.next_id(), llm.spec)
    for replica in [replica for replica in llm.active_replicas() if not fleet.is_blocked(replica)]:
        is_startable = replica.phase in (ReplicaPhase.WAITING, ReplicaPhase.FAILED)
        if replica.phase is ReplicaPhase.ASLEEP:
            replica.move(ReplicaMove.WAKE_ORDERED)
            replica.ordered_s = now_s
            fleet.out.append(commands.WakeReplica(replica.id))
        elif is_startable and replica.retry.is_due(now_s):
            _start(fleet, llm, replica, now_s)


def _missing(fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord) -> int:
    active = llm.active_replicas()
    current = [replica for replica in active if not fleet.is_outdated(llm, replica)]
    allowed = llm.desired_replicas - len(active)
    if len(current) < min(llm.desired_replicas, len(active)):
        allowed += rolling_update.next_step(fleet, llm).extra
    return min(llm.desired_replicas - len(current), allowed)


def _start(
    fleet: llm_fleet.Fleet,
    llm: llm_state.LlmRecord,
    replica: replica_state.ReplicaRecord,
    now_s: float,
) -> None:
    refusal = fleet.start_refusal(replica, now_s)
    if refusal:
        # A failure, or GPUs that nobody has, say more to a user.
        shortage = fleet.bookings.shortage(fleet.gpus_for(llm)) if replica.plan is None else ""
        replica.reason = replica.retry.reason or shortage or refusal
        return
    plan = fleet.bookings.book(replica.holder, replica.id, fleet.gpus_for(llm))
    if isinstance(plan, str):
        replica.reason = plan
        return
    replica.move(ReplicaMove.START_ORDERED)
    replica.plan, replica.reason, replica.ordered_s = plan, replica.retry.reason, now_s
    replica.spec = llm.spec
    replica.starts += 1
    fleet.out.append(commands.StartReplica(replica.id, llm.spec, plan))
