"""The order in which engines with outdated settings are replaced.

Where there is room, a replacement comes up before an old engine goes: then no request waits, and
settings with which no engine starts leave the old engines as they are. Where there is none, old
engines go first, one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshserve.core.llm import llm_fleet, llm_state, replica_state
from meshserve.core.llm.replica_state import ReplicaPhase

MEMORY_MARGIN = 1.2
"""A second engine takes about the memory of the first; a part of it may still grow."""

TRIED = replica_state.COMING_UP | {ReplicaPhase.FAILED}
"""Phases of a replacement that has its room."""


class RolloutStep(NamedTuple):
    """The next step: the replicas that go now, and how many may run beside the desired ones.

    `shortage` says why no replacement comes before them.
    """

    going: frozenset[str] = frozenset()
    extra: int = 0
    shortage: str = ""


def next_step(fleet: llm_fleet.Fleet, llm: llm_state.LlmRecord) -> RolloutStep:
    """Return how the replacement of the LLM's outdated engines goes on."""
    active = llm.active_replicas()
    outdated = [replica for replica in active if fleet.is_outdated(llm, replica)]
    current = [replica for replica in active if not fleet.is_outdated(llm, replica)]
    serving = [replica for replica in outdated if replica.phase in replica_state.SERVING]
    # What does not serve has no requests to lose, so it goes at once.
    useless = {replica.id for replica in outdated if replica.phase not in replica_state.SERVING}
    if not serving:
        return RolloutStep(frozenset(useless))
    shortage = _shortage(fleet, llm, current, serving)
    ready = sum(replica.phase is ReplicaPhase.READY for replica in current)
    spare = len(serving) + ready - llm.desired_replicas
    # Without room one goes at a time: the next one only when all others serve.
    if shortage and spare <= 0:
        others = [replica for replica in active if replica is not serving[-1]]
        spare = int(all(replica.phase is ReplicaPhase.READY for replica in others))
    # The last ones are those that drain already.
    going = serving[len(serving) - max(0, min(spare, len(serving))) :]
    going += [replica for replica in serving if fleet.nodes_of(replica) & fleet.evicted]
    return RolloutStep(
        frozenset(useless | {replica.id for replica in going}), int(not shortage), shortage
    )


def _shortage(
    fleet: llm_fleet.Fleet,
    llm: llm_state.LlmRecord,
    current: Sequence[replica_state.ReplicaRecord],
    serving: Sequence[replica_state.ReplicaRecord],
) -> str:
    """Return why no engine can come up beside those that serve, "" if one can or does."""
    if llm.spec.share:
        return "its GPUs hold one engine at a time"
    if any(replica.phase in TRIED for replica in current):
        return ""
    gpus = fleet.gpus_for(llm)
    if all(fleet.nodes_of(replica) & fleet.avoided for replica in serving):
        # It comes up on another machine, whose memory no engine has reported.
        return fleet.bookings.shortage(gpus)
    return fleet.bookings.shortage(gpus) if gpus else _memory_shortage(serving)


def _memory_shortage(serving: Sequence[replica_state.ReplicaRecord]) -> str:
    reports = [replica.report for replica in serving if replica.report is not None]
    need = max((report.memory_bytes for report in reports), default=0) * MEMORY_MARGIN
    free = max((report.memory_free_bytes for report in reports), default=0)
    if need and free >= need:
        return ""
    if not need:
        return "the memory that it takes is not known yet"
    return f"it takes {_gib(need)} GiB and {_gib(free)} GiB are free on its machine"


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 30):.1f}"
