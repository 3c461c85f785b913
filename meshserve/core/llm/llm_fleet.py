"""The state of all LLMs together, which events change and decisions read.

It holds the LLMs with their replicas, the GPU bookings, the turns of groups that share GPUs, and
the outbox that commands go to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshserve.core.llm import gpu_bookings, gpu_time_sharing, llm_state, replica_state
from meshserve.core.llm.replica_state import ReplicaMove, ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import commands, llm_spec

# With up to four starts at once on two cores, a healthy one took 93 s instead of 35.
CORES_PER_START = 2
BUSY_START_S = 120.0
"""A start that takes longer waits for a download or a disk, and leaves the cores to others."""


class Fleet:
    """All LLMs. `turns` maps each `share` group to the LLM that may be awake.

    Nodes `avoided` are being drained: replicas there are outdated. Those on nodes `evicted` go at
    once, whether others have come up for them or not.
    """

    def __init__(self, gateways: gateways.Gateways, out: commands.Outbox) -> None:
        self.llms: dict[str, llm_state.LlmRecord] = {}
        self.turns: dict[str, str] = {}
        self.bookings = gpu_bookings.GpuBookings()
        self.avoided: frozenset[str] = frozenset()
        self.evicted: set[str] = set()
        self.gateways = gateways
        self.out = out

    # LLMs and replicas

    def find_served(self, name: str) -> llm_state.LlmRecord | None:
        """Return the LLM that clients call by `name`, None if none is served."""
        served = (llm for llm in self.llms.values() if llm.is_wanted)
        return next((llm for llm in served if name in llm.spec.names), None)

    def find_llm_of(self, replica_id: str) -> llm_state.LlmRecord | None:
        """Return the LLM that a replica belongs to."""
        return self.llms.get(llm_name(replica_id))

    def find_replica(self, replica_id: str) -> replica_state.ReplicaRecord | None:
        """Return the replica, None if none has this id."""
        llm = self.find_llm_of(replica_id)
        return llm.replicas.get(replica_id) if llm else None

    def replicas(self) -> Iterator[replica_state.ReplicaRecord]:
        """Return all replicas of all LLMs."""
        return (replica for llm in self.llms.values() for replica in llm.replicas.values())

    def add_replica(
        self, llm: llm_state.LlmRecord, replica_id: str, spec: llm_spec.LlmSpec
    ) -> replica_state.ReplicaRecord:
        """Add a replica without a process. It inherits the failures of the last one with its id."""
        retry = llm.retries.setdefault(replica_id, replica_state.ReplicaRetry())
        replica = replica_state.ReplicaRecord(replica_id, spec, retry, reason=retry.reason)
        llm.replicas[replica_id] = replica
        return replica

    def remove_replica(self, replica: replica_state.ReplicaRecord, move: ReplicaMove) -> None:
        """Remove a replica, and give back GPUs that no replica holds any more."""
        replica.move(move)
        del self.llms[llm_name(replica.id)].replicas[replica.id]
        placed = (other for other in self.replicas() if other.phase in replica_state.PLACED)
        self.bookings.keep_only({other.holder for other in placed})

    def set_wanted(self, wanted: Iterable[llm_spec.LlmSpec]) -> None:
        """Serve exactly these LLMs from now on."""
        specs = {spec.name: spec for spec in wanted}
        for name, spec in specs.items():
            llm = self.llms.setdefault(name, llm_state.LlmRecord(name, spec))
            if not llm.spec.is_same_engine(spec):
                # Failures of another engine say nothing about this one: it starts at once.
                llm.retries.clear()
            llm.spec = spec
        for name, llm in self.llms.items():
            llm.is_wanted = name in specs

    def forget_gone(self) -> None:
        """Forget the LLMs that are not wanted and have no replica and no route any more."""
        # An LLM with a route is still in the configuration that gateways were given last.
        self.llms = {
            name: llm
            for name, llm in self.llms.items()
            if llm.is_wanted or llm.replicas or llm.route
        }

    # Nodes

    def avoid(self, nodes: frozenset[str]) -> None:
        """Have no replica on these nodes, which are all that are being drained."""
        self.avoided = self.bookings.avoided = nodes
        self.evicted &= nodes

    def evict(self, node: str) -> None:
        """Wait no longer for others to come up for the replicas of an avoided node."""
        self.evicted.add(node)

    def nodes_of(self, replica: replica_state.ReplicaRecord) -> set[str]:
        """Return the nodes on which the replica has a process or GPUs, as far as they are known."""
        own = {replica.endpoint.node} if replica.endpoint else set()
        if replica.phase in replica_state.PLACED:
            own |= self.bookings.nodes_of(replica.holder)
        return own

    def replicas_on(self, node: str) -> Iterator[replica_state.ReplicaRecord]:
        """Return the replicas that the node has."""
        return (replica for replica in self.replicas() if node in self.nodes_of(replica))

    # Starts

    def start_refusal(self, replica: replica_state.ReplicaRecord, now_s: float) -> str:
        """Return why the replica may not start right now, "" if it may.

        A start keeps some cores busy, and more at a time make each of them slower. A replica that
        may fail again starts only while no other one does.
        """
        starting = sum(
            other.phase is ReplicaPhase.STARTING and now_s - other.ordered_s < BUSY_START_S
            for other in self.replicas()
        )
        # At least one, also while it is not known how many cores the nodes have.
        most = max(1, self.bookings.cores // CORES_PER_START)
        if starting >= (1 if replica.retry.is_doubtful else most):
            return f"{starting} other engine{'s start' if starting > 1 else ' starts'} at this time"
        return ""

    # Turns on shared GPUs

    def assign_turns(self, now_s: float) -> None:
        """Decide for each group which LLM may be awake."""
        groups: dict[str, list[gpu_time_sharing.GroupMember]] = {}
        for llm in self.llms.values():
            if llm.spec.share and llm.is_wanted:
                groups.setdefault(llm.spec.share, []).append(group_member(llm))
        self.turns = {
            group: gpu_time_sharing.next_turn(members, self.turns.get(group, ""), now_s)
            for group, members in groups.items()
        }

    def has_turn(self, llm: llm_state.LlmRecord) -> bool:
        """Return whether the LLM may be awake."""
        return not llm.spec.share or self.turns.get(llm.spec.share) == llm.name

    def is_blocked(self, replica: replica_state.ReplicaRecord) -> bool:
        """Return whether another replica of its group still uses the memory of their GPUs."""
        share = replica.spec.share
        others = (
            other for other in self.replicas() if other is not replica and other.spec.share == share
        )
        # Failed and stopping engines count too, because their processes may still hold memory.
        return bool(share) and any(
            other.phase not in (ReplicaPhase.WAITING, ReplicaPhase.ASLEEP) for other in others
        )

    def gpus_for(self, llm: llm_state.LlmRecord) -> int:
        """Return how many GPUs to book for a replica: in a group, those of its biggest member."""
        if not llm.spec.share:
            return llm.spec.gpus
        members = (other for other in self.llms.values() if other.is_wanted)
        return max(
            (other.spec.gpus for other in members if other.spec.share == llm.spec.share), default=0
        )

    def is_outdated(self, llm: llm_state.LlmRecord, replica: replica_state.ReplicaRecord) -> bool:
        """Return whether its engine or node is outdated, or its group needs more GPUs now."""
        if not replica.spec.is_same_engine(llm.spec) or self.nodes_of(replica) & self.avoided:
            return True
        # Whether it takes other adapters is known from its report.
        can_not_change = replica.report is not None and not replica.report.can_change_adapters
        if can_not_change and not replica.spec.has_same_adapters(llm.spec):
            return True
        return bool(llm.spec.share and replica.plan) and self.bookings.gpus_of(
            replica.holder
        ) < self.gpus_for(llm)

    # What gateways know

    def is_route_known(self, llm: llm_state.LlmRecord) -> bool:
        """Return whether every gateway that takes snapshots has applied its current route."""
        return llm.route == llm.desired_route() and self.gateways.have_taken(llm.revision)

    def is_diverted(self, llm: llm_state.LlmRecord) -> bool:
        """Return whether no gateway sends requests to its draining replicas any more.

        Gateways that drain take no snapshots, and still pass on the requests that they have.
        """
        return self.is_route_known(llm) and self.gateways.have_all_taken(llm.revision)

    def can_serve(self, llm: llm_state.LlmRecord) -> bool:
        """Return whether a request that is let through now finds a replica, at any gateway."""
        return bool(llm.replicas_in({ReplicaPhase.READY})) and self.is_route_known(llm)

    def expected_s(self, llm: llm_state.LlmRecord, now_s: float) -> float:
        """Return the seconds until the LLM is expected to serve, with the wait for its turn."""
        holder = self.llms.get(self.turns.get(llm.spec.share, "")) if llm.spec.share else None
        # A holder that does not serve yet has no known end of its turn.
        if holder is None or holder is llm or not holder.replicas_in(replica_state.SERVING):
            return llm.expected_s(now_s)
        return max(0.0, group_member(holder).stays_until_s - now_s) + llm.expected_s(now_s)

    def check(self) -> None:
        """Assert the invariants of replicas, groups, held requests and bookings."""
        awake_by_group: dict[str, list[str]] = {}
        for replica in self.replicas():
            assert replica.phase is not ReplicaPhase.ABSENT
            assert (replica.phase in replica_state.SERVING) <= (replica.endpoint is not None), (
                f"{replica.id} serves nowhere"
            )
            assert (replica.phase in replica_state.PLACED) == (replica.plan is not None), (
                f"{replica.id} has no place"
            )
            if replica.spec.share and replica.phase in replica_state.AWAKE:
                awake_by_group.setdefault(replica.spec.share, []).append(replica.id)
        for group, awake in awake_by_group.items():
            assert len(awake) == 1, f"{awake} of group {group} are awake"
        tickets = [request.ticket for llm in self.llms.values() for request in llm.held]
        assert len(tickets) == len(set(tickets))
        for llm in self.llms.values():
            llm.held.check(llm.spec.held)
            assert llm.is_wanted or not llm.held
        self.bookings.check()


def llm_name(replica_id: str) -> str:
    """Return the name of the LLM that a replica belongs to."""
    return replica_id.rpartition("/")[0]


def group_member(llm: llm_state.LlmRecord) -> gpu_time_sharing.GroupMember:
    """Return the state of an LLM as the decision about its group's turn needs it."""
    replica = next(iter(llm.active_replicas()), None)
    phase = replica.phase if replica else ReplicaPhase.ABSENT
    stage: gpu_time_sharing.Stage = "down"
    if phase in replica_state.SERVING:
        stage = "up"
    elif phase in replica_state.COMING_UP:
        stage = "coming up"
    elif phase is ReplicaPhase.FAILED:
        stage = "failed"
    return gpu_time_sharing.GroupMember(
        llm.name,
        stage,
        replica.up_s if replica else 0.0,
        llm.spec.residency_s_min,
        llm.used_s,
        llm.held.since_s,
        is_always_on=llm.spec.replicas_min > 0,
    )
