"""The GPUs of the cluster: what was seen free, and what was given to engines since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshserve.core.llm import gpu_placement
from meshserve.core.values import llm_spec

UNKNOWN = "what the nodes have is not known yet"


@dataclass(slots=True)
class Booking:
    """What one holder was given. `is_seen`: what was seen free is so without it. `is_up`: its engine runs, so it surely holds them."""

    placement: gpu_placement.Placement
    gpus: int
    is_seen: bool = False
    is_up: bool = False
    replica_ids: set[str] = field(default_factory=set)


class GpuBookings:
    """A holder is a replica, or a group whose replicas use the same GPUs in turn. No GPU is given to two holders."""

    def __init__(self) -> None:
        self.bookings: dict[str, Booking] = {}
        self._nodes: tuple[llm_spec.NodeCapacity, ...] | None = None

    def seen(self, nodes: tuple[llm_spec.NodeCapacity, ...]) -> None:
        """This is what the nodes have. What an engine that runs holds is not among what is free."""
        self._nodes = nodes
        there = {id_ for node in nodes for id_ in node.replicas}
        for booking in self.bookings.values():
            booking.is_seen |= booking.is_up or bool(booking.replica_ids & there)

    def free(self) -> tuple[llm_spec.NodeCapacity, ...]:
        """What is free for others than the holders there are."""
        return tuple(node._replace(gpus_free=self._free(node)) for node in self._nodes or ())

    def _free(self, node: llm_spec.NodeCapacity) -> int:
        """What was seen may be older than what was given since, and newer than what was given back."""
        given = {
            holder: booking.placement.takes.get(node.node, 0)
            for holder, booking in self.bookings.items()
        }
        unseen = sum(count for holder, count in given.items() if not self.bookings[holder].is_seen)
        return max(0, min(node.gpus_free - unseen, node.gpus - sum(given.values())))

    def place(self, holder: str, replica_id: str, gpus: int) -> llm_spec.ReplicaPlan | str:
        """Where the holder's replica goes: where the holder is, if that will do; or what is missing, in words."""
        if not gpus:
            return gpu_placement.CPU
        booking = self.bookings.get(holder)
        if booking is None or not self._is_there(booking, gpus):
            placement = self._place_anew(holder, gpus)
            if isinstance(placement, str):
                return placement
            booking = self.bookings[holder] = Booking(placement, gpus)
        booking.replica_ids.add(replica_id)
        return booking.placement.plan

    def _place_anew(self, holder: str, gpus: int) -> gpu_placement.Placement | str:
        if self._nodes is None:
            return UNKNOWN
        self.bookings.pop(holder, None)
        free = self.free()
        return gpu_placement.place(gpus, free) or gpu_placement.missing(gpus, free, self._holders())

    def _is_there(self, booking: Booking, gpus: int) -> bool:
        nodes = {node.node for node in self._nodes or ()}
        return booking.gpus >= gpus and (
            self._nodes is None or set(booking.placement.takes) <= nodes
        )

    def _holders(self) -> Mapping[str, int]:
        return {holder: booking.gpus for holder, booking in self.bookings.items()}

    def attach(self, holder: str, replica_id: str, gpus: int, node: str) -> llm_spec.ReplicaPlan:
        """A replica runs already; what is seen free will be so without it."""
        if not gpus:
            return gpu_placement.CPU
        placement = gpu_placement.Placement(llm_spec.ReplicaPlan((gpus,), "mp", node), {node: gpus})
        booking = self.bookings.setdefault(
            holder, Booking(placement, gpus, is_seen=True, is_up=True)
        )
        booking.replica_ids.add(replica_id)
        return booking.placement.plan

    def is_up(self, holder: str) -> None:
        """The holder's engine runs."""
        if holder in self.bookings:
            self.bookings[holder].is_up = True

    def gpus_of(self, holder: str) -> int:
        """How many GPUs the holder was given."""
        return self.bookings[holder].gpus if holder in self.bookings else 0

    def keep(self, holders: Iterable[str]) -> None:
        """Nobody else holds anything any more."""
        kept = set(holders)
        self.bookings = {
            holder: booking for holder, booking in self.bookings.items() if holder in kept
        }

    def check(self) -> None:
        """State what always holds: every holder has what it was given on some node, and no node that is known gave more than it has."""
        for booking in self.bookings.values():
            assert sum(booking.placement.takes.values()) == booking.gpus > 0
