"""The nodes as readers see them, with how far their drains have come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshserve.core.mesh import node_drains
from meshserve.core.values import nodes


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node: `state` is ready, or the phase of its drain.

    Of its copies `moved` are loaded elsewhere, `to_move` are to be, `failed` failed there, and
    `without_room` have no room there. `remaining` says what still runs on it.
    """

    node: nodes.ClusterNode
    state: str = "ready"
    moved: int = 0
    to_move: int = 0
    failed: int = 0
    without_room: int = 0
    remaining: tuple[str, ...] = ()


def views(
    seen: Iterable[nodes.ClusterNode], drains: node_drains.NodeDrains
) -> tuple[NodeView, ...]:
    """Return the views of these nodes."""
    return tuple(_view(node, drains) for node in seen)


def _view(node: nodes.ClusterNode, drains: node_drains.NodeDrains) -> NodeView:
    drain = drains.drains.get(node.id)
    if drain is None:
        return NodeView(node)
    moves = drain.moves
    remaining = tuple(drains.remaining(node.id))
    counts = (moves.done, moves.open, moves.failed, moves.without_room)
    return NodeView(node, drain.phase.value, *counts, remaining)
