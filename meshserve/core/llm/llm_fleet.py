"""All LLMs with their replicas, GPUs and turns: the one state that events change, that decisions read, and what it means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshserve.core.llm import gpu_bookings, gpu_time_sharing, llm_state, replica_lifecycle
from meshserve.core.llm.replica_lifecycle import ReplicaMove, ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import llm_spec


def name_of(replica_id: str) -> str:
    """The LLM that the replica belongs to."""
    return replica_id.rpartition("/")[0]


class Fleet:
    """`turns` says for each group of LLMs that share GPUs which of them may be awake."""

    def __init__(self, gateways: gateways.Gateways) -> None:
        self.llms: dict[str, llm_state.LlmRecord] = {}
        self.turns: dict[str, str] = {}
        self.room = gpu_bookings.GpuBookings()
        self.gates = gateways

    def called(self, name: str) -> llm_state.LlmRecord | None:
        """The LLM that clients mean by this name, if one is served."""
        return next((each for each in self.llms.values() if name in each.callable_names()), None)

    def of(self, replica_id: str) -> llm_state.LlmRecord | None:
        """The LLM of a replica."""
        return self.llms.get(name_of(replica_id))

    def replica(self, replica_id: str) -> llm_state.ReplicaRecord | None:
        """The replica of that id, if there is one."""
        each = self.of(replica_id)
        return each.replicas.get(replica_id) if each else None

    def replicas(self) -> Iterator[llm_state.ReplicaRecord]:
        """All replicas of all LLMs."""
        return (replica for each in self.llms.values() for replica in each.replicas.values())

    def add(
        self, each: llm_state.LlmRecord, replica_id: str, spec: llm_spec.LlmSpec
    ) -> llm_state.ReplicaRecord:
        """One replica more, which has nothing yet. What is known of its last failures is known of it."""
        trouble = each.troubles.setdefault(replica_id, llm_state.StartFailure())
        each.replicas[replica_id] = replica = llm_state.ReplicaRecord(
            replica_id, spec, trouble, reason=trouble.reason
        )
        return replica

    def remove(self, replica: llm_state.ReplicaRecord, move: ReplicaMove) -> None:
        """The replica is there no more, and with the last one of its holder its GPUs are given back."""
        replica.move(move)
        del self.llms[name_of(replica.id)].replicas[replica.id]
        self.room.keep(
            each.holder for each in self.replicas() if each.state in replica_lifecycle.PLACED
        )

    def want(self, wanted: Iterable[llm_spec.LlmSpec]) -> None:
        """From now on exactly these are to be served. What failed with another engine says nothing about this one."""
        specs = {spec.name: spec for spec in wanted}
        for name, spec in specs.items():
            each = self.llms.setdefault(name, llm_state.LlmRecord(name, spec))
            if not llm_state.is_same_engine(each.spec, spec):
                each.troubles.clear()
            each.spec = spec
        for name, each in self.llms.items():
            each.is_wanted = name in specs

    def forget_gone(self) -> None:
        """Let go of what is neither wanted nor there."""
        self.llms = {
            name: each
            for name, each in self.llms.items()
            if each.is_wanted or each.replicas or each.route
        }

    # Turns

    def take_turns(self, now_s: float) -> None:
        """Decide in each group who may be awake."""
        groups: dict[str, list[gpu_time_sharing.GroupMember]] = {}
        for each in self.llms.values():
            if each.spec.share and each.is_wanted:
                groups.setdefault(each.spec.share, []).append(member(each))
        self.turns = {
            group: gpu_time_sharing.turn(members, self.turns.get(group, ""), now_s)
            for group, members in groups.items()
        }

    def has_turn(self, each: llm_state.LlmRecord) -> bool:
        """Whether it may be awake."""
        return not each.spec.share or self.turns.get(each.spec.share) == each.name

    def is_blocked(self, replica: llm_state.ReplicaRecord) -> bool:
        """Whether another one of its group is not out of the way yet."""
        share = replica.spec.share
        others = (
            other for other in self.replicas() if other is not replica and other.spec.share == share
        )
        return bool(share) and any(
            other.state not in (ReplicaPhase.WAITING, ReplicaPhase.ASLEEP) for other in others
        )

    def gpus(self, each: llm_state.LlmRecord) -> int:
        """How many GPUs its replica is given: as many as the biggest of its group needs."""
        group = (
            other.spec.gpus
            for other in self.llms.values()
            if other.is_wanted and other.spec.share == each.spec.share
        )
        return max(group, default=0) if each.spec.share else each.spec.gpus

    def is_stale(self, each: llm_state.LlmRecord, replica: llm_state.ReplicaRecord) -> bool:
        """Whether its engine is not the one that is asked for, or its group has too few GPUs for all of its members now."""
        if not llm_state.is_same_engine(replica.spec, each.spec):
            return True
        return bool(each.spec.share and replica.plan) and self.room.gpus_of(
            replica.holder
        ) < self.gpus(each)

    # What gateways know

    def is_shown(self, each: llm_state.LlmRecord) -> bool:
        """Whether every gateway that takes snapshots knows of it what it should."""
        return each.route == each.wanted_route() and self.gates.have_taken(each.revision)

    def may_go(self, each: llm_state.LlmRecord) -> bool:
        """Whether no gateway sends requests any more to those of its replicas that leave, unless it was told to."""
        return self.is_shown(each) and self.gates.have_all_taken(each.revision)

    def can_serve(self, each: llm_state.LlmRecord) -> bool:
        """Whether a request that is let through now finds a replica, wherever it is held."""
        return bool(each.among({ReplicaPhase.READY})) and self.is_shown(each)

    def expected_s(self, each: llm_state.LlmRecord, now_s: float) -> float:
        """In how many seconds it is expected to serve, the wait for its turn included."""
        holder = self.llms.get(self.turns.get(each.spec.share, "")) if each.spec.share else None
        if holder is None or holder is each or not holder.among(replica_lifecycle.SERVING):
            return each.expected_s(now_s)
        return max(0.0, gpu_time_sharing.until_s(member(holder)) - now_s) + each.expected_s(now_s)

    def check(self) -> None:
        """State what always holds."""
        groups: dict[str, list[llm_state.ReplicaRecord]] = {}
        for replica in self.replicas():
            assert replica.state is not ReplicaPhase.ABSENT
            assert (replica.state in replica_lifecycle.SERVING) <= (replica.endpoint is not None), (
                f"{replica.id} serves nowhere"
            )
            assert (replica.state in replica_lifecycle.PLACED) == (replica.plan is not None), (
                f"{replica.id} has no place"
            )
            if replica.spec.share and replica.state in replica_lifecycle.AWAKE:
                groups.setdefault(replica.spec.share, []).append(replica)
        for name, awake in groups.items():
            assert len(awake) == 1, f"{[each.id for each in awake]} of group {name} are awake"
        tickets = [request.ticket for each in self.llms.values() for request in each.held]
        assert len(tickets) == len(set(tickets))
        self.room.check()


def member(each: llm_state.LlmRecord) -> gpu_time_sharing.GroupMember:
    """How the LLM is, for deciding whose turn it is."""
    replica = next(iter(each.living()), None)
    state = replica.state if replica else ReplicaPhase.ABSENT
    stage: gpu_time_sharing.Stage = "away"
    if state in replica_lifecycle.SERVING:
        stage = "up"
    elif state in replica_lifecycle.COMING:
        stage = "coming"
    elif state is ReplicaPhase.FAILED:
        stage = "failed"
    since_s = replica.up_s if replica else 0.0
    return gpu_time_sharing.GroupMember(
        each.name,
        stage,
        since_s,
        each.spec.residency_s_min,
        each.used_s,
        each.held.since_s,
        is_kept=each.spec.replicas_min > 0,
    )
