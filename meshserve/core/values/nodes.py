"""The machines of the cluster, and the wishes of admins that some of them be drained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LEAVE_S = 45.0
"""What a drain may take beside the time that copies and engines have to move: requests under way
have 30 s, and then processes end."""


class ClusterNode(NamedTuple):
    """One machine. `name` and `address` are what its operator calls it; `id` is Ray's."""

    id: str
    name: str = ""
    address: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    is_head: bool = False

    def has_labels(self, labels: tuple[tuple[str, str], ...]) -> bool:
        """Return whether it has all of these labels."""
        return set(labels) <= set(self.labels)

    def __str__(self) -> str:
        """Return the address, the name and the beginning of the id, as far as they are known."""
        words = dict.fromkeys(filter(None, (self.address, self.name)))
        return f"{' '.join(words)} ({self.id[:12]})" if words else self.id[:12]


@dataclass(frozen=True, slots=True)
class NodeDraining:
    """A saved wish: the node is to lose all that the mesh runs on it.

    Models and engines may take `move_s` seconds to be loaded elsewhere first. With `is_ended` Ray
    drains the node afterwards, which ends its Ray.
    """

    node: str
    move_s: float
    is_ended: bool = False


@dataclass(frozen=True, slots=True)
class NodeDrainingEnded:
    """The wish is taken back, or the node has left the cluster."""

    node: str
