"""What held requests are told: each one is let through, turned away, or waits for one of the two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshserve.core.llm import hold_queue, llm_fleet, llm_state
from meshserve.core.llm.replica_lifecycle import ReplicaPhase
from meshserve.core.values import commands, events

AGAIN_S = 1.0
"""When to try again where nothing is known that it would take."""


def arrive(
    fleet: llm_fleet.Fleet, event: events.RequestHeld, now_s: float
) -> Iterator[commands.Command]:
    """What a request is told that has just come; nothing while it waits."""
    each = fleet.called(event.name)
    if each is None:
        yield commands.TurnAway(event.ticket, f"no model {event.name!r} is served", AGAIN_S)
        return
    each.used_s = now_s
    if fleet.can_serve(each):
        yield commands.Admit(event.ticket)
        return
    failure = each.failure(now_s)
    refusal = failure.reason if failure else each.held.refusal(each.spec.held, event.size_bytes)
    if refusal:
        yield from _turn_away(fleet, each, [event.ticket], refusal, now_s)
    else:
        each.held.add(hold_queue.HeldRequest(event.ticket, event.size_bytes, now_s))


def follow(
    fleet: llm_fleet.Fleet, each: llm_state.LlmRecord, now_s: float
) -> Iterator[commands.Command]:
    """What those are told that wait."""
    if not each.is_wanted:
        yield from _turn_away(fleet, each, each.held.take_all(), "it is not served any more", now_s)
    elif fleet.can_serve(each):
        yield from (commands.Admit(ticket) for ticket in each.held.take_all())
    elif each.living() and all(replica.state is ReplicaPhase.FAILED for replica in each.living()):
        yield from _turn_away(fleet, each, each.held.take_all(), each.reason, now_s)
    else:
        limits = each.spec.held
        yield from _turn_away(
            fleet, each, each.held.take_overdue(limits, now_s), "it took too long to come up", now_s
        )
        yield from _turn_away(
            fleet, each, each.held.take_surplus(limits), "fewer may wait for it from now on", now_s
        )


def _turn_away(
    fleet: llm_fleet.Fleet,
    each: llm_state.LlmRecord,
    tickets: Iterable[str],
    reason: str,
    now_s: float,
) -> Iterator[commands.Command]:
    for ticket in tickets:
        each.turned_away += 1
        yield commands.TurnAway(
            ticket, f"model {each.name!r} is not ready: {reason}", fleet.expected_s(each, now_s)
        )
