"""Ray's nodes as the core's values, and the end of one by Ray's own drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import ray

# Private API, as what `ray drain-node` calls: there is no public one.
from ray import _raylet, exceptions
from ray.core.generated import autoscaler_pb2

from meshserve import errors
from meshserve.cluster import replica_placement
from meshserve.core.values import nodes

HEAD_RESOURCE = "node:__internal_head__"
"""The resource that Ray gives to the head node alone, one unit of it."""

END_S = 10.0
"""How long Ray waits for what it has on a drained node: nothing of ours is there any more."""

REASON = "drained by meshserve"


async def living_nodes() -> tuple[nodes.ClusterNode, ...]:
    """Return all living nodes, by id. Raises Unavailable if Ray does not answer."""
    living = map(cluster_node, await replica_placement.living_nodes())
    return tuple(sorted(living, key=lambda node: node.id))


def cluster_node(record: Mapping[str, Any]) -> nodes.ClusterNode:
    """Return the node of one of Ray's records."""
    labels: Mapping[str, str] = record.get("Labels") or {}
    address = str(record.get("NodeManagerAddress", ""))
    return nodes.ClusterNode(
        str(record["NodeID"]),
        # Ray calls a node by its address where `ray start` gave it no name.
        str(record.get("NodeName") or record.get("NodeManagerHostname") or ""),
        address,
        tuple(sorted(labels.items())),
        is_head=HEAD_RESOURCE in record.get("Resources", {}),
    )


async def end_node(node: str) -> None:
    """Have Ray end a node that it may not use any more. Raises Unavailable if it refuses."""
    try:
        is_accepted, refusal = await asyncio.to_thread(_drain, node)
    except (exceptions.RayError, RuntimeError) as error:
        raise errors.Unavailable(f"Ray does not drain node {node}: {error}") from error
    if not is_accepted:
        raise errors.Unavailable(f"Ray refuses to drain node {node}: {refusal}")


def _drain(node: str) -> tuple[bool, str]:
    ray_parts: Any = _raylet
    client = ray_parts.GcsClient(address=ray.get_runtime_context().gcs_address)
    # As before a preemption: a drain of an idle node is refused while any actor is on it.
    messages: Any = autoscaler_pb2
    reason = messages.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + END_S) * 1000)
    is_accepted, refusal = client.drain_node(node, reason, REASON, deadline_ms)
    return bool(is_accepted), str(refusal)
