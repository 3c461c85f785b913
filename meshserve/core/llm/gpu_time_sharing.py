"""Whose turn it is on the GPUs that a group of LLMs shares: a function of how its members are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

Stage = Literal["away", "coming", "up", "failed"]


class GroupMember(NamedTuple):
    """One LLM of the group. Away: it sleeps, is on its way to sleep, or does not run; coming: it starts or wakes.

    `since_s` is since when it is up, `asked_s` since when a request waits for it. `is_kept`: it should run though nobody asks for it.
    """

    name: str
    stage: Stage
    since_s: float = 0.0
    residency_s_min: float = 0.0
    used_s: float = 0.0
    asked_s: float | None = None
    is_kept: bool = False


def turn(members: Sequence[GroupMember], current: str, now_s: float) -> str:
    """The member that may be awake from now on; empty: none need be.

    Who is up stays until its time is over and another is asked for; who was asked for first comes next. So a group changes at most
    once in each member's `residency_s_min`, however busy its members are.
    """
    holder = next((each for each in members if each.name == current), None)
    asked = _asked([each for each in members if each is not holder])
    if holder is None:
        return next(_choices(members, asked), "")
    if _stays(holder, now_s, is_other_asked=bool(asked)):
        return current
    return next(_choices(members, asked, holder), "")


def _stays(holder: GroupMember, now_s: float, *, is_other_asked: bool) -> bool:
    match holder.stage:
        case "coming":
            return True
        case "up":
            return not is_other_asked or now_s < until_s(holder)
        case "failed":
            return not is_other_asked
        case "away":
            return holder.asked_s is not None


def until_s(holder: GroupMember) -> float:
    """Until when it stays up, whoever is asked for."""
    return holder.since_s + holder.residency_s_min


def _asked(members: Sequence[GroupMember]) -> list[GroupMember]:
    """Those that requests wait for; of two that were asked for at once, the one whose last turn is longer ago first."""
    return sorted(
        (each for each in members if each.asked_s is not None),
        key=lambda each: (each.asked_s, each.used_s, each.name),
    )


def _choices(
    members: Sequence[GroupMember], asked: Sequence[GroupMember], holder: GroupMember | None = None
) -> Iterator[str]:
    yield from (each.name for each in asked)
    yield from (each.name for each in members if each.stage in ("up", "coming"))
    if holder is not None and holder.is_kept:
        yield holder.name
    yield from (each.name for each in members if each.is_kept)
