"""Which LLM of a group that shares GPUs may be awake: a function of the state of its members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, assert_never

Stage = Literal["down", "coming up", "up", "failed"]


class GroupMember(NamedTuple):
    """One LLM of a group. The stage `down` means that it sleeps, goes to sleep, or does not run.

    It has been serving since `up_s`, and a request has been waiting since `requested_s`.
    `is_always_on`: it runs even without requests, while no other member needs the GPUs.
    """

    name: str
    stage: Stage
    up_s: float = 0.0
    residency_s_min: float = 0.0
    used_s: float = 0.0
    requested_s: float | None = None
    is_always_on: bool = False

    @property
    def stays_until_s(self) -> float:
        """The time before which no other member takes its turn."""
        return self.up_s + self.residency_s_min


def next_turn(members: Sequence[GroupMember], current: str, now_s: float) -> str:
    """Return the name of the member that may be awake from now on, "" if none must be.

    The member that is up stays until its residency time is over and another one is requested; of
    several, the one requested first is next. So the number of requests can't make a group swap
    more often than once in a member's `residency_s_min`.
    """
    holder = next((member for member in members if member.name == current), None)
    requested = _in_order_of_requests([member for member in members if member is not holder])
    if holder is not None and _stays(holder, now_s, is_other_requested=bool(requested)):
        return current
    return next(_candidates(members, requested, holder), "")


def _stays(holder: GroupMember, now_s: float, *, is_other_requested: bool) -> bool:
    match holder.stage:
        case "coming up":
            # Most of the start is done already, so the member may serve before it gives way.
            return True
        case "up":
            return not is_other_requested or now_s < holder.stays_until_s
        case "failed":
            return not is_other_requested
        case "down":
            # The member waits for another one to free the GPUs, as long as a request waits for it.
            return holder.requested_s is not None
        case _:
            assert_never(holder.stage)


def _in_order_of_requests(members: Sequence[GroupMember]) -> list[GroupMember]:
    # Of two members that were requested at once, the least recently used one comes first.
    return sorted(
        (member for member in members if member.requested_s is not None),
        key=lambda member: (member.requested_s, member.used_s, member.name),
    )


def _candidates(
    members: Sequence[GroupMember], requested: Sequence[GroupMember], holder: GroupMember | None
) -> Iterator[str]:
    yield from (member.name for member in requested)
    # Without requests nothing is swapped: a member that is up keeps the GPUs.
    yield from (member.name for member in members if member.stage in ("up", "coming up"))
    if holder is not None and holder.is_always_on:
        yield holder.name
    yield from (member.name for member in members if member.is_always_on)
