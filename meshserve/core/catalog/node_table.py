"""The nodes of the cluster, and those of them that are to be drained."""

from __future__ import annotations

from collections.abc import Iterator

from meshserve import errors
from meshserve.core.values import commands, events, nodes


class NodeTable:
    """The nodes that were seen last, and the saved wishes to drain some of them, by id."""

    def __init__(self) -> None:
        self.seen: tuple[nodes.ClusterNode, ...] = ()
        self.draining: dict[str, nodes.NodeDraining] = {}

    def apply(self, change: nodes.NodeDraining | nodes.NodeDrainingEnded) -> None:
        """Apply a saved change."""
        if isinstance(change, nodes.NodeDraining):
            self.draining[change.node] = change
        else:
            self.draining.pop(change.node, None)

    def staying(self) -> tuple[nodes.ClusterNode, ...]:
        """Return the nodes that are not to be drained."""
        return tuple(node for node in self.seen if node.id not in self.draining)

    def gone(self) -> tuple[str, ...]:
        """Return the nodes with a wish that have left the cluster; none before nodes were seen."""
        ids = {node.id for node in self.seen}
        return tuple(node for node in self.draining if ids and node not in ids)

    def find(self, text: str) -> nodes.ClusterNode:
        """Return the node with this name, address or id, or whose id alone begins with the text.

        Raises InvalidRequest if none is called so, or more than one.
        """
        exact = [node for node in self.seen if text in (node.id, node.name, node.address)]
        called = exact or [node for node in self.seen if text and node.id.startswith(text)]
        if len(called) == 1:
            return called[0]
        if called:
            listed = ", ".join(map(str, called))
            raise errors.InvalidRequest(f"{len(called)} nodes are called {text!r}: {listed}")
        listed = ", ".join(map(str, self.seen)) or "none"
        raise errors.InvalidRequest(f"no node is called {text!r}; there are: {listed}")


def decide(
    table: NodeTable, request: events.NodeDrainRequested | events.NodeDrainEndRequested
) -> commands.SaveChanges:
    """Return what the request would change.

    Raises InvalidRequest for a node that is not there; Conflict for the last one that is not
    drained, and for an end of the head's Ray.
    """
    if isinstance(request, events.NodeDrainEndRequested):
        return _end(table, request.node)
    node = table.find(request.node)
    wish = nodes.NodeDraining(node.id, request.move_s, request.is_ended)
    if wish == table.draining.get(node.id):
        return commands.SaveChanges((), (f"node {node} is being drained already",))
    if all(other == node for other in table.staying()):
        raise errors.Conflict(
            f"node {node} is the only one that is not drained: `meshserve down` ends the mesh"
        )
    if request.is_ended and node.is_head:
        raise errors.Conflict(f"node {node} is Ray's head: without it the cluster ends")
    return commands.SaveChanges((wish,), tuple(_words(node)))


def _words(node: nodes.ClusterNode) -> Iterator[str]:
    yield f"node {node} drains"
    if node.is_head:
        yield (
            "the controller and Ray's GCS stay on it: when it ends, requests are answered "
            "elsewhere, but the mesh changes nothing until Ray's head is back"
        )


def _end(table: NodeTable, text: str) -> commands.SaveChanges:
    # By its id also when it has left, which the mesh itself asks for.
    id_ = text if text in table.draining else table.find(text).id
    if id_ not in table.draining:
        return commands.SaveChanges((), (f"node {table.find(text)} is not being drained",))
    return commands.SaveChanges(
        (nodes.NodeDrainingEnded(id_),), (f"node {id_[:12]} is not drained any more",)
    )
