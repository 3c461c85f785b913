"""The GPUs that each replica has booked, chosen from those that the nodes last had free."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from meshserve.core.values import llm_spec

UNKNOWN = "what the nodes have is not known yet"
ON_CPU = llm_spec.ReplicaPlan()


class Placement(NamedTuple):
    """A plan, and how many GPUs it takes on each node."""

    plan: llm_spec.ReplicaPlan
    gpus_by_node: Mapping[str, int]


@dataclass(slots=True)
class Booking:
    """The GPUs of one holder.

    `is_observed`: the nodes' `gpus_free` already leaves these GPUs out. `is_running`: the holder's
    engine is up, so the next observation will leave them out.
    """

    placement: Placement
    gpus: int
    is_observed: bool = False
    is_running: bool = False
    replica_ids: set[str] = field(default_factory=set)


class GpuBookings:
    """All bookings by holder. No GPU is booked twice.

    A holder is a replica, or a `share` group whose replicas use the same GPUs in turn. Nobody gets
    anything on the nodes `avoided`.
    """

    def __init__(self) -> None:
        self.bookings: dict[str, Booking] = {}
        self.avoided: frozenset[str] = frozenset()
        self._nodes: tuple[llm_spec.NodeCapacity, ...] | None = None

    def observe(self, nodes: tuple[llm_spec.NodeCapacity, ...]) -> None:
        """Keep the nodes' capacities. The free GPUs are those that no running engine uses."""
        self._nodes = nodes
        replica_ids = {replica_id for node in nodes for replica_id in node.replicas}
        for booking in self.bookings.values():
            booking.is_observed |= booking.is_running or bool(booking.replica_ids & replica_ids)

    @property
    def cores(self) -> int:
        """The cores of all nodes together, 0 while they are not known."""
        return sum(node.cores for node in self._nodes or ())

    @property
    def _usable(self) -> tuple[llm_spec.NodeCapacity, ...]:
        return tuple(node for node in self._nodes or () if node.node not in self.avoided)

    def free_capacity(self) -> tuple[llm_spec.NodeCapacity, ...]:
        """Return the nodes with the GPUs that are free for new holders."""
        return tuple(node._replace(gpus_free=self._free_gpus(node)) for node in self._usable)

    def _free_gpus(self, node: llm_spec.NodeCapacity) -> int:
        # An observation that is older than a booking shows the booked GPUs as free. One that is
        # newer than an engine's death shows the engine's GPUs as free, though they are booked.
        booked = {
            holder: booking.placement.gpus_by_node.get(node.node, 0)
            for holder, booking in self.bookings.items()
        }
        unobserved = sum(
            gpus for holder, gpus in booked.items() if not self.bookings[holder].is_observed
        )
        return max(0, min(node.gpus_free - unobserved, node.gpus - sum(booked.values())))

    def shortage(self, gpus: int) -> str:
        """Return why no new holder gets so many GPUs now, "" if it does."""
        if self._nodes is None:
            return UNKNOWN if gpus else ""
        free = self.free_capacity()
        if not free:
            return "all nodes are being drained"
        if not gpus or choose_nodes(gpus, free) is not None:
            return ""
        holders = {holder: booking.gpus for holder, booking in self.bookings.items()}
        return explain_shortage(gpus, free, holders)

    def book(self, holder: str, replica_id: str, gpus: int) -> llm_spec.ReplicaPlan | str:
        """Book GPUs for a holder's replica; keep the holder's earlier ones if they are enough.

        Return the replica's plan, or in words why the GPUs are not free.
        """
        if not gpus:
            return dataclasses.replace(ON_CPU, avoided=tuple(sorted(self.avoided)))
        booking = self.bookings.get(holder)
        if booking is None or not self._is_enough(booking, gpus):
            placement = self._choose_anew(holder, gpus)
            if isinstance(placement, str):
                return placement
            booking = self.bookings[holder] = Booking(placement, gpus)
        booking.replica_ids.add(replica_id)
        return booking.placement.plan

    def _choose_anew(self, holder: str, gpus: int) -> Placement | str:
        if self._nodes is None:
            return UNKNOWN
        # The holder's own GPUs count as free: its processes end before the new ones start.
        self.bookings.pop(holder, None)
        free = self.free_capacity()
        holders = {other: booking.gpus for other, booking in self.bookings.items()}
        return choose_nodes(gpus, free) or explain_shortage(gpus, free, holders)

    def _is_enough(self, booking: Booking, gpus: int) -> bool:
        # A node that is gone has taken the booked GPUs with it.
        nodes = {node.node for node in self._usable}
        return booking.gpus >= gpus and (
            # Before the first observation nothing is known to be gone.
            self._nodes is None or set(booking.placement.gpus_by_node) <= nodes
        )

    def book_running(
        self, holder: str, replica_id: str, gpus: int, node: str
    ) -> llm_spec.ReplicaPlan:
        """Book the GPUs of a replica that already runs, and return its plan."""
        if not gpus:
            return ON_CPU
        placement = Placement(llm_spec.ReplicaPlan((gpus,), "mp", node), {node: gpus})
        running = Booking(placement, gpus, is_observed=True, is_running=True)
        booking = self.bookings.setdefault(holder, running)
        booking.replica_ids.add(replica_id)
        return booking.placement.plan

    def mark_running(self, holder: str) -> None:
        """Note that the holder's engine runs."""
        if holder in self.bookings:
            self.bookings[holder].is_running = True

    def gpus_of(self, holder: str) -> int:
        """Return how many GPUs are booked for the holder."""
        return self.bookings[holder].gpus if holder in self.bookings else 0

    def nodes_of(self, holder: str) -> set[str]:
        """Return the nodes on which GPUs are booked for the holder."""
        return (
            set(self.bookings[holder].placement.gpus_by_node) if holder in self.bookings else set()
        )

    def keep_only(self, holders: Collection[str]) -> None:
        """Give back the GPUs of all other holders."""
        self.bookings = {
            holder: booking for holder, booking in self.bookings.items() if holder in holders
        }

    def check(self) -> None:
        """Assert that every booking has its GPUs on some node."""
        for booking in self.bookings.values():
            assert sum(booking.placement.gpus_by_node.values()) == booking.gpus > 0


def choose_nodes(gpus: int, nodes: Sequence[llm_spec.NodeCapacity]) -> Placement | None:
    """Return a placement on `gpus` free GPUs, None if they are not free.

    If any node has that many GPUs, free or not, one node must take them all: waiting is better
    than an engine that talks over the network. Otherwise several nodes take bundles of one GPU.
    """
    if any(node.gpus >= gpus for node in nodes):
        fitting = [node for node in nodes if node.gpus_free >= gpus]
        if not fitting:
            return None
        # Best fit: nodes with many free GPUs stay free for engines that need many.
        node = min(fitting, key=lambda node: (node.gpus_free, node.node))
        return Placement(llm_spec.ReplicaPlan((gpus,), "mp", node.node), {node.node: gpus})
    return _on_several(gpus, nodes) if sum(node.gpus_free for node in nodes) >= gpus else None


def _on_several(gpus: int, nodes: Sequence[llm_spec.NodeCapacity]) -> Placement:
    gpus_by_node: dict[str, int] = {}
    missing = gpus
    # The nodes with the most free GPUs first: the fewer nodes, the less goes over the network.
    for node in sorted(nodes, key=lambda node: (-node.gpus_free, node.node)):
        taken = min(missing, node.gpus_free)
        missing -= taken
        if taken > 0:
            gpus_by_node[node.node] = taken
    return Placement(llm_spec.ReplicaPlan((1,) * gpus, "ray"), gpus_by_node)


def explain_shortage(
    gpus: int, nodes: Sequence[llm_spec.NodeCapacity], holders: Mapping[str, int]
) -> str:
    """Return in words why `gpus` GPUs are not free; `holders` has the GPUs of each holder."""
    total = sum(node.gpus for node in nodes)
    if total < gpus:
        return f"it needs {_in_words(gpus)} and the cluster has {total}"
    if not any(node.gpus >= gpus for node in nodes):
        free, place = sum(node.gpus_free for node in nodes), "the cluster"
    else:
        best = max(nodes, key=lambda node: (node.gpus_free, node.gpus, node.node))
        free, place = best.gpus_free, f"one node: {best.node}" if len(nodes) > 1 else best.node
    shares = [f"{name} holds {count}" for name, count in sorted(holders.items())]
    rest = total - sum(node.gpus_free for node in nodes) - sum(holders.values())
    if rest > 0:
        shares.append(f"others hold {rest}")
    return "; ".join([f"it needs {_in_words(gpus)} and {free} are free on {place}", *shares])


def _in_words(gpus: int) -> str:
    return f"{gpus} GPU{'' if gpus == 1 else 's'}"
