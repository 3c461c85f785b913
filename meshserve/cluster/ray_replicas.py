"""The control plane's port to the engines of LLMs: an actor for each replica, with a placement group where it has GPUs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import ray
from ray import exceptions
from ray._private import state as ray_state  # what is free on each node has no public name
from ray.util import (
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
    scheduling_strategies,
)

from meshserve import errors
from meshserve.cluster import actors, gpu_lease, named_actors, replica_actor
from meshserve.core.values import events, llm_spec, model

REPLICA = "replica:"
NODE_LABEL = "ray.io/node-id"
PLACED_S = 30.0
STARTED_MARGIN_S = 30.0
"""The server gives up a start by itself, and knows better why."""

STOP_S = actors.DRAIN_S + 30.0
ASLEEP_S = actors.DRAIN_S + 120.0
AWAKE_S = 600.0

logger = logging.getLogger(__name__)


class RayReplicas:
    """Implements control_ports.Replicas."""

    def __init__(
        self,
        named: named_actors.NamedActors,
        make: replica_actor.ReplicaMaker,
        run_dir: str,
        host: str,
    ) -> None:
        self._named = named
        self._make = make
        self._run_dir = run_dir
        self._host = host
        self._seats = gpu_lease.GpuLeases(named)
        self._takers: dict[str, tuple[str, ...]] = {}

    async def living_replicas(self) -> tuple[llm_spec.LivingReplica, ...]:
        """The replicas that run, whoever started them. One that is still starting is ended: nobody waits for it any more."""
        names = await self._named.names(REPLICA)
        found = await asyncio.gather(*(self._living(name) for name in names))
        return tuple(each for each in found if each is not None)

    async def _living(self, name: str) -> llm_spec.LivingReplica | None:
        try:
            living: llm_spec.LivingReplica = await self._named.call(name, "living")
        except errors.Unavailable:
            await self._try_to_remove(name.removeprefix(REPLICA))
            return None
        return living

    async def start_replica(
        self, replica_id: str, spec: llm_spec.LlmSpec, plan: llm_spec.ReplicaPlan
    ) -> events.ReplicaReady:
        """Start it, in place of any that is left of an earlier one; returns once it has made a token. Raises MeshError with the reason."""
        name = REPLICA + replica_id
        begun_s = time.monotonic()
        await self._remove(replica_id)
        try:
            gpus, options = await self._placed(replica_id, spec, plan)
            address = model.ServerAddress(
                replica_id, self._run_dir, host=self._host or node_address()
            )
            options = {"num_cpus": 0, "max_restarts": 0, **options}
            await self._named.create(
                name,
                replica_actor.ReplicaActor,
                options,
                self._make,
                address,
                spec,
                plan.backend,
            )
            started: replica_actor.Started = await self._named.call(
                name, "start", gpus, timeout_s=spec.start_timeout_s + STARTED_MARGIN_S
            )
        except errors.MeshError:
            await self._try_to_remove(replica_id)
            raise
        return events.ReplicaReady(
            replica_id, started.endpoint, started.pid, time.monotonic() - begun_s
        )

    async def stop_replica(self, replica_id: str) -> None:
        """Let it answer what it has accepted, end it with all its processes, and free what it held."""
        name = REPLICA + replica_id
        if await self._is_started(name):
            await self._named.stop(name, STOP_S)
        await self._remove(replica_id)

    async def _is_started(self, name: str) -> bool:
        """Whether there is an engine to drain. One that starts is in the middle of it, and would not hear for a long time."""
        try:
            await self._named.call(name, "living")
        except errors.Unavailable:
            return False
        return True

    async def wait_until_replica_lost(self, replica_id: str) -> str:
        """Returns the reason once its process or its engine has ended, or its tokens stall; at once where there is none."""
        return await self._named.wait_until_ended(REPLICA + replica_id)

    async def sleep_replica(self, replica_id: str, level: int) -> None:
        """Let it answer what it has accepted, and have it sleep."""
        await self._named.call(REPLICA + replica_id, "sleep", level, timeout_s=ASLEEP_S)

    async def wake_replica(self, replica_id: str) -> events.ReplicaWoken:
        """Returns once it has made a token again."""
        begun_s = time.monotonic()
        await self._named.call(REPLICA + replica_id, "wake", timeout_s=AWAKE_S)
        return events.ReplicaWoken(replica_id, time.monotonic() - begun_s)

    async def replica_report(self, replica_id: str) -> llm_spec.LlmReport:
        """How it is now."""
        found: llm_spec.LlmReport = await self._named.call(REPLICA + replica_id, "report")
        return found

    async def room(self) -> tuple[llm_spec.NodeCapacity, ...]:
        """What the nodes have for engines."""
        # What is noted as taken before Ray is asked is not among what it says is free.
        taken = dict(self._takers)
        try:
            nodes = await asyncio.to_thread(ray.nodes)
            free = await asyncio.to_thread(ray_state.available_resources_per_node)
        except exceptions.RayError as error:
            raise errors.Unavailable(f"Ray does not answer: {error}") from error
        return tuple(
            _room(node, free.get(node["NodeID"], {}), taken) for node in nodes if node["Alive"]
        )

    async def _placed(
        self, replica_id: str, spec: llm_spec.LlmSpec, plan: llm_spec.ReplicaPlan
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """GPUs that were taken for it beside Ray's way, and Ray's options for its actor. Raises Unavailable where there is no room."""
        there = (
            scheduling_strategies.NodeAffinitySchedulingStrategy(plan.node, soft=False)
            if plan.node
            else "SPREAD"
        )
        if not plan.bundles:
            return (), {"scheduling_strategy": there}
        if spec.share:
            gpus = await self._seats.take(replica_id, spec.share, plan)
            self._takers[replica_id] = (plan.node,)
            return gpus, {"scheduling_strategy": there}
        group = await named_actors.to_the_end(_group, REPLICA + replica_id, plan)
        if not await asyncio.to_thread(group.wait, PLACED_S):
            raise errors.Unavailable(
                f"no room for its GPUs within {PLACED_S:g} s: bundles of {list(plan.bundles)}"
            )
        self._takers[replica_id] = await asyncio.to_thread(_nodes, group)
        return (), {
            "num_gpus": _gpus(plan),
            "scheduling_strategy": scheduling_strategies.PlacementGroupSchedulingStrategy(group, 0),
        }

    async def _try_to_remove(self, replica_id: str) -> None:
        """The same where something else matters more: what is left goes when it is started or stopped the next time."""
        try:
            await self._remove(replica_id)
        except errors.Unavailable as error:
            logger.warning("what is left of replica %s: %s", replica_id, error.message)

    async def _remove(self, replica_id: str) -> None:
        """End what is left of it, and give back what it held."""
        name = REPLICA + replica_id
        await self._named.remove(name)
        await asyncio.to_thread(_remove_group, name)
        await self._seats.leave(replica_id)
        self._takers.pop(replica_id, None)


def _group(name: str, plan: llm_spec.ReplicaPlan) -> Any:
    """The placement group of an actor, named as it is: whoever ends the actor finds it by that."""
    strategy = "STRICT_PACK" if len(plan.bundles) == 1 else "PACK"
    labels = [{NODE_LABEL: plan.node} for _ in plan.bundles] if plan.node else None
    bundles = [{"GPU": float(gpus)} for gpus in plan.bundles]
    return placement_group(
        bundles, strategy, name, lifetime="detached", bundle_label_selector=labels
    )


def _nodes(group: Any) -> tuple[str, ...]:
    """The nodes of a group that was placed."""
    return tuple(set(placement_group_table(group)["bundles_to_node_id"].values()))


def _remove_group(name: str) -> None:
    with contextlib.suppress(ValueError):  # there is none
        remove_placement_group(get_placement_group(name))


def _gpus(plan: llm_spec.ReplicaPlan) -> int:
    """The GPUs of the actor itself: with vLLM's Ray backend its engine has actors of its own in the bundles."""
    return plan.bundles[0] if plan.bundles and plan.backend == "mp" else 0


def _room(
    node: dict[str, Any], free: dict[str, float], taken: dict[str, tuple[str, ...]]
) -> llm_spec.NodeCapacity:
    whole, name = node["Resources"], node["NodeID"]
    replicas = tuple(replica_id for replica_id, nodes in taken.items() if name in nodes)
    return llm_spec.NodeCapacity(
        name, int(whole.get("GPU", 0)), int(free.get("GPU", 0)), int(whole.get("CPU", 0)), replicas
    )


def node_address() -> str:
    """The address under which other nodes reach this one."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
