"""The node on which this process runs, as a pod knows itself at its end: by Ray, without a key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from meshserve import errors
from meshserve.cluster import controller_actor, session
from meshserve.protocol import mesh_status

CALL_S = 30.0


class OwnNode:
    """This node of the Ray cluster that runs here; `id` is Ray's."""

    def __init__(self, controller: controller_actor.ControllerHandle) -> None:
        self.id = session.own_node()
        self._controller = controller

    def drain(self, timeout_s: float, *, is_ended: bool) -> list[str]:
        """Have the node drained, as `AdminClient.drain_node` does."""
        return self._controller.drain_node(self.id, timeout_s, is_ended=is_ended, within_s=CALL_S)

    def end_drain(self) -> list[str]:
        """Have the node used again."""
        return self._controller.end_node_drain(self.id, CALL_S)

    def status(self) -> mesh_status.MeshStatus:
        """Return the status of the mesh. Raises Unavailable while the controller is away."""
        return self._controller.status(CALL_S)


@contextlib.contextmanager
def found(address: str) -> Iterator[OwnNode]:
    """Join the Ray cluster of this machine, and leave it with the block.

    Raises Unavailable if none runs here, or if no mesh runs on it.
    """
    session.join(address)
    try:
        controller = controller_actor.find_controller()
        if controller is None:
            raise errors.Unavailable("no mesh runs on the Ray cluster of this machine")
        yield OwnNode(controller)
    finally:
        session.end()
