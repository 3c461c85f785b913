"""The controller's port to LLM replicas: one Ray actor per replica, with its GPUs booked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
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
from meshserve.cluster import actor_process, gpu_lease, named_actors, replica_actor
from meshserve.core.values import events, llm_spec, model

REPLICA = "replica:"
NODE_LABEL = "ray.io/node-id"
PLACED_S = 30.0
START_MARGIN_S = 30.0
"""Added to the timeout of the start call, so that the server times out first, with the reason."""

STOP_S = actor_process.DRAIN_S + 30.0
SLEEP_S = actor_process.DRAIN_S + 120.0
WAKE_S = 600.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ReplicaPlacement(NamedTuple):
    """The CUDA device numbers that a lease gave a replica, and Ray's options for its actor."""

    gpus: tuple[str, ...]
    options: dict[str, Any]


class RayReplicas:
    """Implements `cluster_control.ReplicaControl`.

    Processes keep their sockets in `run_dir` and listen on `host`, by default the address of the
    controller's node.
    """

    def __init__(self, make: replica_actor.ReplicaMaker, run_dir: str, host: str = "") -> None:
        self._actors = named_actors.NamedActors()
        self._make = make
        self._run_dir = run_dir
        self._host = host or actor_process.node_address()
        self._leases = gpu_lease.GpuLeases(self._actors)
        self._nodes_with_gpus: dict[str, tuple[str, ...]] = {}

    async def living_replicas(self) -> tuple[llm_spec.LivingReplica, ...]:
        """Return the running replicas, and end those that are still starting.

        A start that an earlier controller began is of no use: its outcome would reach no one.
        """
        names = await self._actors.names(REPLICA)
        answers = await asyncio.gather(*(self._living(name) for name in names))
        return tuple(answer for answer in answers if answer is not None)

    async def _living(self, name: str) -> llm_spec.LivingReplica | None:
        try:
            return await self._actors.call(name, "living")
        except errors.Unavailable:
            await self._try_to_remove(name.removeprefix(REPLICA))
            return None

    async def start_replica(
        self, replica_id: str, spec: llm_spec.LlmSpec, plan: llm_spec.ReplicaPlan
    ) -> events.ReplicaReady:
        """Start a replica in place of an earlier one; return once it has generated a token.

        Raises a MeshError with the reason if it does not start.
        """
        name = REPLICA + replica_id
        begun_s = time.monotonic()
        await self._remove(replica_id)
        try:
            placement = await self._place(replica_id, spec, plan)
            address = model.ServerAddress(replica_id, self._run_dir, host=self._host)
            options = {"num_cpus": 0, "max_restarts": 0, **placement.options}
            arguments = (self._make, address, spec, plan.backend)
            await self._actors.create(name, replica_actor.ReplicaActor, options, *arguments)
            endpoint, pid = await self._actors.call(
                name, "start", placement.gpus, timeout_s=spec.start_timeout_s + START_MARGIN_S
            )
        except errors.MeshError:
            await self._try_to_remove(replica_id)
            raise
        return events.ReplicaReady(replica_id, endpoint, pid, time.monotonic() - begun_s)

    async def stop_replica(self, replica_id: str) -> None:
        """Let the replica answer its requests, end all its processes, and free its GPUs."""
        name = REPLICA + replica_id
        if await self._is_started(name):
            await self._actors.stop(name, STOP_S)
        await self._remove(replica_id)

    async def _is_started(self, name: str) -> bool:
        # An actor that is starting its engine would not answer `stop` for minutes.
        try:
            await self._actors.call(name, "living")
        except errors.Unavailable:
            return False
        return True

    async def wait_until_replica_lost(self, replica_id: str) -> str:
        """Wait until the process or engine has ended or hangs; return the reason.

        Returns at once if the replica does not exist.
        """
        return await self._actors.wait_until_ended(REPLICA + replica_id)

    async def sleep_replica(self, replica_id: str, level: int) -> None:
        """Let the replica answer its requests, then put its engine to sleep at `level` (1 or 2)."""
        await self._actors.call(REPLICA + replica_id, "sleep", level, timeout_s=SLEEP_S)

    async def wake_replica(self, replica_id: str) -> events.ReplicaWoken:
        """Wake the replica's engine; return once it has generated a token again."""
        begun_s = time.monotonic()
        await self._actors.call(REPLICA + replica_id, "wake", timeout_s=WAKE_S)
        return events.ReplicaWoken(replica_id, time.monotonic() - begun_s)

    async def replica_report(self, replica_id: str) -> llm_spec.LlmReport:
        """Return the replica's present state."""
        return await self._actors.call(REPLICA + replica_id, "report")

    async def node_capacities(self) -> tuple[llm_spec.NodeCapacity, ...]:
        """Return the GPUs and cores of each node. Raises Unavailable if Ray does not answer."""
        # Copied before Ray is asked, so that Ray's figures include at least these replicas.
        nodes_with_gpus = dict(self._nodes_with_gpus)
        nodes = await living_nodes()
        free = await _ask_ray(ray_state.available_resources_per_node)
        return tuple(
            _node_capacity(node, free.get(node["NodeID"], {}), nodes_with_gpus) for node in nodes
        )

    async def _place(
        self, replica_id: str, spec: llm_spec.LlmSpec, plan: llm_spec.ReplicaPlan
    ) -> ReplicaPlacement:
        """Book the replica's GPUs. Raises Unavailable if they are not free in time."""
        strategy = named_actors.on_node(plan.node) if plan.node else "SPREAD"
        if not plan.bundles:
            return ReplicaPlacement((), {"scheduling_strategy": strategy})
        if spec.share:
            gpus = await self._leases.take(replica_id, spec.share, plan)
            self._nodes_with_gpus[replica_id] = (plan.node,)
            return ReplicaPlacement(gpus, {"scheduling_strategy": strategy})
        group = await named_actors.run_to_end(_create_group, REPLICA + replica_id, plan)
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

    async def _try_to_remove(self, replica_id: str) -> None:
        # A failure here must not hide the reason why the start failed; `_remove` runs again
        # before the next start and after the next stop.
        try:
            await self._remove(replica_id)
        except errors.Unavailable as error:
            logger.warning("what is left of replica %s: %s", replica_id, error.message)

    async def _remove(self, replica_id: str) -> None:
        """Kill the replica's actor and free its GPUs."""
        name = REPLICA + replica_id
        await self._actors.remove(name)
        await asyncio.to_thread(_remove_group, name)
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


def _create_group(name: str, plan: llm_spec.ReplicaPlan) -> Any:
    """Create a placement group with the name of its actor, by which `_remove_group` finds it."""
    strategy = "STRICT_PACK" if len(plan.bundles) == 1 else "PACK"
    labels = [{NODE_LABEL: plan.node} for _ in plan.bundles] if plan.node else None
    bundles = [{"GPU": float(gpus)} for gpus in plan.bundles]
    return placement_group(
        bundles, strategy, name, lifetime="detached", bundle_label_selector=labels
    )


def _remove_group(name: str) -> None:
    with contextlib.suppress(ValueError):  # no group has this name
        remove_placement_group(get_placement_group(name))


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
