"""The next step of every replica: who goes, who comes, who sleeps. Follows from how all is; nothing is kept here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshserve.core.llm import autoscaling, llm_fleet, llm_state, replica_lifecycle
from meshserve.core.llm.replica_lifecycle import ReplicaMove, ReplicaPhase
from meshserve.core.values import commands


def count(fleet: llm_fleet.Fleet, each: llm_state.LlmRecord, now_s: float) -> None:
    """Decide how many replicas it should have, and note since when they have too much or too little to do."""
    before = each.count
    each.count = _wanted(fleet, each, now_s)
    reports = each.reports()
    is_same = before == each.count and bool(reports)
    each.pressed_s = (
        _since(each.pressed_s, now_s) if is_same and autoscaling.is_pressed(reports) else None
    )
    each.quiet_s = (
        _since(each.quiet_s, now_s) if is_same and autoscaling.is_quiet(reports) else None
    )


def _since(since_s: float | None, now_s: float) -> float:
    return now_s if since_s is None else since_s


def _wanted(fleet: llm_fleet.Fleet, each: llm_state.LlmRecord, now_s: float) -> int:
    if not each.is_wanted:
        return 0
    is_used = each.is_used(now_s)
    if each.spec.share:
        is_there = bool(each.living()) or fleet.has_turn(each)
        return 1 if is_there and (is_used or each.spec.replicas_min) else 0
    pressed_s, quiet_s = (
        0.0 if since_s is None else now_s - since_s for since_s in (each.pressed_s, each.quiet_s)
    )
    return autoscaling.wanted(
        each.spec,
        autoscaling.LlmLoad(
            each.count, len(each.among({ReplicaPhase.READY})), pressed_s, quiet_s, is_used
        ),
    )


def shed(fleet: llm_fleet.Fleet, each: llm_state.LlmRecord) -> Iterator[commands.Command]:
    """What goes: replicas that are too many, were started for another engine, or whose turn is over. What need not go stays."""
    living = each.living()
    extra = {replica.id for replica in living[each.count :]}
    for replica in living:
        is_stale = fleet.is_stale(each, replica)
        if replica.id in extra or (is_stale and _may_replace(living, replica)):
            yield from _stop(fleet, each, replica)
        elif not fleet.has_turn(each):
            yield from _rest(fleet, each, replica)
        else:
            replica.spec = replica.spec if is_stale else each.spec
            if replica.state is ReplicaPhase.LEAVING:
                replica.move(ReplicaMove.KEPT)


def _may_replace(
    living: Iterable[llm_state.ReplicaRecord], replica: llm_state.ReplicaRecord
) -> bool:
    """One that serves goes only while all others do."""
    others = (other for other in living if other is not replica)
    return replica.state not in replica_lifecycle.SERVING or all(
        other.state is ReplicaPhase.READY for other in others
    )


def _stop(
    fleet: llm_fleet.Fleet, each: llm_state.LlmRecord, replica: llm_state.ReplicaRecord
) -> Iterator[commands.Command]:
    if replica.state is ReplicaPhase.READY:
        replica.move(ReplicaMove.LEAVE_ORDERED)
    elif replica.state is ReplicaPhase.WAITING:
        fleet.remove(replica, ReplicaMove.GIVEN_UP)
    elif replica.state is ReplicaPhase.DROWSING or (
        replica.state is ReplicaPhase.LEAVING and not fleet.may_go(each)
    ):
        return
    else:
        if replica.state is not ReplicaPhase.FAILED:
            each.troubles.pop(replica.id, None)
        replica.move(ReplicaMove.STOP_ORDERED)
        yield commands.StopReplica(replica.id)


def _rest(
    fleet: llm_fleet.Fleet, each: llm_state.LlmRecord, replica: llm_state.ReplicaRecord
) -> Iterator[commands.Command]:
    """Another one has its turn. What has failed may have left something on the GPUs, which must go first."""
    if replica.state is ReplicaPhase.READY:
        replica.move(ReplicaMove.LEAVE_ORDERED)
    elif replica.state is ReplicaPhase.LEAVING and fleet.may_go(each):
        replica.move(ReplicaMove.SLEEP_ORDERED)
        yield commands.SleepReplica(replica.id, each.spec.sleep_level)
    elif replica.state in (ReplicaPhase.FAILED, ReplicaPhase.WAITING):
        yield from _stop(fleet, each, replica)


def raise_(
    fleet: llm_fleet.Fleet, each: llm_state.LlmRecord, now_s: float
) -> Iterator[commands.Command]:
    """What comes: replicas that are too few, have failed and waited long enough, or sleep and have their turn."""
    if not fleet.has_turn(each):
        return
    for _ in range(each.count - len(each.living())):
        fleet.add(each, each.next_id(), each.spec)
    for replica in [one for one in each.living() if not fleet.is_blocked(one)]:
        if replica.state is ReplicaPhase.ASLEEP:
            replica.move(ReplicaMove.WAKE_ORDERED)
            replica.ordered_s = now_s
            yield commands.WakeReplica(replica.id)
        elif (
            replica.state in (ReplicaPhase.WAITING, ReplicaPhase.FAILED)
            and now_s >= replica.trouble.retry_at_s
        ):
            yield from _start(fleet, each, replica, now_s)


def _start(
    fleet: llm_fleet.Fleet,
    each: llm_state.LlmRecord,
    replica: llm_state.ReplicaRecord,
    now_s: float,
) -> Iterator[commands.Command]:
    plan = fleet.room.place(replica.holder, replica.id, fleet.gpus(each))
    if isinstance(plan, str):
        replica.reason = plan
        return
    replica.move(ReplicaMove.START_ORDERED)
    replica.plan, replica.reason, replica.ordered_s = plan, replica.trouble.reason, now_s
    replica.starts += 1
    yield commands.StartReplica(replica.id, each.spec, plan)
