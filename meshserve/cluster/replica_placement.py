"""The nodes and GPUs of replicas: a replica books its own GPUs, or leases those of its group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import ray
from ray import exceptions

# Private API, because no public one tells what is free on each node: `ray.available_resources`
# adds all nodes up, and `ray.util.state` needs the dashboard.
from ray._private import state as ray_state
from ray.util import (
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
    scheduling_strategies,
)

from meshserve import errors
from meshserve.cluster import gpu_lease, named_actors
from meshserve.core.values import llm_spec

GROUP = "replica:"
"""What the name of a replica's placement group begins with, and then has the replica's id."""

NODE_LABEL = "ray.io/node-id"
PLACED_S = 30.0

T = TypeVar("T")


class ReplicaPlacement(NamedTuple):
    """The CUDA device numbers that a lease gave a replica, and Ray's options for its actor."""

    gpus: tuple[str, ...]
    options: dict[str, Any]


class ReplicaPlacements:
    """The places of all replicas, also those that an earlier controller has started."""

    def __init__(self, actors: named_actors.NamedActors) -> None:
        self._leases = gpu_lease.GpuLeases(actors)
        self._nodes_with_gpus: dict[str, tuple[str, ...]] = {}

    async def node_capacities(self) -> tuple[llm_spec.NodeCapacity, ...]:
        """Return the GPUs and cores of each node. Raises Unavailable if Ray does not answer."""
        # Copied before Ray is asked, so that Ray's figures include at least these replicas.
        nodes_with_gpus = dict(self._nodes_with_gpus)
        nodes = await living_nodes()
        free = await _ask_ray(ray_state.available_resources_per_node)
        return tuple(
            _node_capacity(node, free.get(node["NodeID"], {}), nodes_with_gpus) for node in nodes
        )

    async def place(
        self, replica_id: str, spec: llm_spec.LlmSpec, plan: llm_spec.ReplicaPlan
    ) -> ReplicaPlacement:
        """Book the replica's GPUs. Raises Unavailable if they are not free in time."""
        strategy = named_actors.on_node(plan.node) if plan.node else "SPREAD"
        if not plan.bundles:
            return ReplicaPlacement((), {"scheduling_strategy": strategy, **_selector(plan)})
        if spec.share:
            gpus = await self._leases.take(replica_id, spec.share, plan)
            self._nodes_with_gpus[replica_id] = (plan.node,)
            return ReplicaPlacement(gpus, {"scheduling_strategy": strategy})
        group = await named_actors.run_to_end(_create_group, replica_id, plan)
        if not await asyncio.to_thread(group.wait, PLACED_S):
            raise errors.Unavailable(
                f"no room for its GPUs within {PLACED_S:g} s: bundles of {list(plan.bundles)}"
            )
        table = await asyncio.to_thread(placement_group_table, group)
        self._nodes_with_gpus[replica_id] = tuple(set(table["bundles_to_node_id"].values()))
        in_group = scheduling_strategies.PlacementGroupSchedulingStrategy(group, 0)
        return ReplicaPlacement(
            (), {"num_gpus": _actor_gpus(plan), "scheduling_strategy": in_group}
        )

    async def release(self, replica_id: str) -> None:
        """Free the GPUs of a replica whose process has ended; those of a group with its last."""
        await asyncio.to_thread(_remove_group, replica_id)
        await self._leases.release(replica_id)
        self._nodes_with_gpus.pop(replica_id, None)


async def living_nodes() -> list[dict[str, Any]]:
    """Return Ray's records of all living nodes. Raises Unavailable if Ray does not answer."""
    return [node for node in await _ask_ray(ray.nodes) if node["Alive"]]


async def _ask_ray(call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except exceptions.RayError as error:
        raise errors.Unavailable(f"Ray does not answer: {error}") from error


def _create_group(replica_id: str, plan: llm_spec.ReplicaPlan) -> Any:
    """Create a placement group with a name by which `_remove_group` finds it."""
    strategy = "STRICT_PACK" if len(plan.bundles) == 1 else "PACK"
    label = {NODE_LABEL: plan.node} if plan.node else _selector(plan).get("label_selector")
    labels = [label for _ in plan.bundles] if label else None
    bundles = [{"GPU": float(gpus)} for gpus in plan.bundles]
    return placement_group(
        bundles,
        strategy,
        GROUP + replica_id,
        lifetime="detached",
        bundle_label_selector=labels,
    )


def _selector(plan: llm_spec.ReplicaPlan) -> dict[str, Any]:
    """Return Ray's option that keeps an actor away from the avoided nodes, if there are any."""
    if not plan.avoided:
        return {}
    return {"label_selector": {NODE_LABEL: f"!in({', '.join(plan.avoided)})"}}


def _remove_group(replica_id: str) -> None:
    with contextlib.suppress(ValueError):  # no group has this name
        remove_placement_group(get_placement_group(GROUP + replica_id))


def _actor_gpus(plan: llm_spec.ReplicaPlan) -> int:
    # With vLLM's Ray backend the engine creates actors of its own, which take the bundles' GPUs.
    return plan.bundles[0] if plan.bundles and plan.backend == "mp" else 0


def _node_capacity(
    node: dict[str, Any], free: dict[str, float], nodes_with_gpus: dict[str, tuple[str, ...]]
) -> llm_spec.NodeCapacity:
    total, node_id = node["Resources"], node["NodeID"]
    return llm_spec.NodeCapacity(
        node_id,
        int(total.get("GPU", 0)),
        int(free.get("GPU", 0)),
        int(total.get("CPU", 0)),
        tuple(replica_id for replica_id, nodes in nodes_with_gpus.items() if node_id in nodes),
    )
