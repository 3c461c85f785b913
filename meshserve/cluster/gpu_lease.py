"""GPUs that LLMs of one group use in turn: an actor of their own holds them in Ray's books as long as a replica of the group is there."""

from __future__ import annotations

import contextlib

import ray
from ray.util import scheduling_strategies

from meshserve import errors
from meshserve.cluster import named_actors
from meshserve.core.values import llm_spec

SEAT = "seat:"
TAKEN_S = 30.0


class GpuLeaseActor:
    """Holds a group's GPUs, and knows who uses them."""

    def __init__(self) -> None:
        self._users: set[str] = set()

    async def take(self, replica_id: str) -> tuple[str, ...]:
        """Have one more user; returns the GPUs, as CUDA numbers them on this node."""
        self._users.add(replica_id)
        return tuple(str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids()["GPU"])

    async def leave(self, replica_id: str) -> bool:
        """Have it not use them any more; whether nobody does."""
        self._users.discard(replica_id)
        return not self._users


class GpuLeases:
    """All groups' seats, whoever made them."""

    def __init__(self, named: named_actors.NamedActors) -> None:
        self._named = named

    async def take(
        self, replica_id: str, group: str, plan: llm_spec.ReplicaPlan
    ) -> tuple[str, ...]:
        """The GPUs of the group's seat, which is made where there is none with so many. Raises Unavailable where there is no room."""
        name = SEAT + group
        if len(plan.bundles) > 1:
            raise errors.Unsupported("LLMs that share GPUs must fit on one node")
        with contextlib.suppress(errors.Unavailable):
            gpus: tuple[str, ...] = await self._named.call(name, "take", replica_id)
            if len(gpus) >= plan.bundles[0]:
                return gpus
        await self._named.remove(name)
        return await self._made(name, replica_id, plan)

    async def _made(
        self, name: str, replica_id: str, plan: llm_spec.ReplicaPlan
    ) -> tuple[str, ...]:
        there = (
            scheduling_strategies.NodeAffinitySchedulingStrategy(plan.node, soft=False)
            if plan.node
            else "DEFAULT"
        )
        options = {
            "num_cpus": 0,
            "num_gpus": plan.bundles[0],
            "scheduling_strategy": there,
            "max_restarts": 0,
        }
        await self._named.create(name, GpuLeaseActor, options)
        try:
            gpus: tuple[str, ...] = await self._named.call(
                name, "take", replica_id, timeout_s=TAKEN_S
            )
        except errors.Unavailable as error:
            await self._named.remove(name)
            raise errors.Unavailable(
                f"no room for {plan.bundles[0]} GPUs: {error.message}"
            ) from None
        return gpus

    async def leave(self, replica_id: str) -> None:
        """The replica is gone; a seat that nobody uses any more goes too."""
        for name in await self._named.names(SEAT):
            with contextlib.suppress(errors.Unavailable):
                if await self._named.call(name, "leave", replica_id):
                    await self._named.remove(name)
