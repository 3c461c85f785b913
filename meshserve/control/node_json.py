"""The nodes of the mesh as the JSON that users see, and the requests to drain them."""

from __future__ import annotations

import math
from typing import Any

from meshserve import errors
from meshserve.core.mesh import node_views
from meshserve.core.values import events
from meshserve.protocol import mesh_status

MOVE_S = 60.0
"""How long models and engines may take to move where a request does not say it."""

KEYS = ("timeout_s", "end")


def node(view: node_views.NodeView) -> mesh_status.NodeStatus:
    """Return one node as users see it."""
    is_drained = view.state != "ready"
    return {
        "id": view.node.id,
        "name": view.node.name,
        "address": view.node.address,
        "is_head": view.node.is_head,
        "state": view.state,
        "drain": _drain(view) if is_drained else None,
    }


def _drain(view: node_views.NodeView) -> mesh_status.DrainStatus:
    return {
        "moved": view.moved,
        "to_move": view.to_move,
        "failed": view.failed,
        "without_room": view.without_room,
        "remaining": list(view.remaining),
    }


def drain_request(name: str, body: dict[str, Any]) -> events.NodeDrainRequested:
    """Return the request in a body: `timeout_s` and `end`, both optional. Raises InvalidRequest."""
    unknown = sorted(set(body) - set(KEYS))
    if unknown:
        raise errors.InvalidRequest(f"unknown key {unknown[0]!r}; there are: {', '.join(KEYS)}")
    timeout_s, is_ended = body.get("timeout_s", MOVE_S), body.get("end", False)
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not is_number or not math.isfinite(timeout_s) or timeout_s < 0:
        raise errors.InvalidRequest(f"timeout_s must be seconds, 0 or more, not {timeout_s!r}")
    if not isinstance(is_ended, bool):
        raise errors.InvalidRequest(f"end must be true or false, not {is_ended!r}")
    return events.NodeDrainRequested(name, float(timeout_s), is_ended)
