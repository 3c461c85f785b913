"""GPUs that the LLMs of one `share` group use in turn.

A lease is an actor that holds the group's GPUs in Ray's accounts while the group has a replica.
"""

from __future__ import annotations

import contextlib

import ray

from meshserve import errors
from meshserve.cluster import named_actors
from meshserve.core.values import llm_spec

PREFIX = "lease:"
START_S = 30.0


class GpuLeaseActor:
    """Holds a group's GPUs and the ids of the replicas that use them."""

    def __init__(self) -> None:
        self._replica_ids: set[str] = set()

    async def take(self, replica_id: str) -> tuple[str, ...]:
        """Add a replica as a user; return the CUDA device numbers of the GPUs on this node."""
        self._replica_ids.add(replica_id)
        return tuple(str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids()["GPU"])

    async def release(self, replica_id: str) -> bool:
        """Remove a replica; return True if none is left."""
        self._replica_ids.discard(replica_id)
        return not self._replica_ids


class GpuLeases:
    """The leases of all groups, also those that an earlier controller created."""

    def __init__(self, actors: named_actors.NamedActors) -> None:
        self._actors = actors

    async def take(
        self, replica_id: str, group: str, plan: llm_spec.ReplicaPlan
    ) -> tuple[str, ...]:
        """Return the CUDA device numbers of the group's GPUs, for a replica that will use them.

        Creates the lease if the group has none with enough GPUs. Raises Unavailable if too few
        GPUs are free, Unsupported if the plan needs more than one node.
        """
        name = PREFIX + group
        if len(plan.bundles) > 1:
            raise errors.Unsupported("LLMs that share GPUs must fit on one node")
        with contextlib.suppress(errors.Unavailable):
            gpus: tuple[str, ...] = await self._actors.call(name, "take", replica_id)
            # A changed configuration may need more GPUs than the lease of the old one holds.
            if len(gpus) >= plan.bundles[0]:
                return gpus
        await self._actors.remove(name)
        return await self._create(name, replica_id, plan)

    async def _create(
        self, name: str, replica_id: str, plan: llm_spec.ReplicaPlan
    ) -> tuple[str, ...]:
        options = {
            "num_cpus": 0,
            "num_gpus": plan.bundles[0],
            "scheduling_strategy": named_actors.on_node(plan.node) if plan.node else "DEFAULT",
            "max_restarts": 0,
        }
        await self._actors.create(name, GpuLeaseActor, options)
        try:
            return await self._actors.call(name, "take", replica_id, timeout_s=START_S)
        except errors.Unavailable as error:
            await self._actors.remove(name)
            raise errors.Unavailable(
                f"no room for {plan.bundles[0]} GPUs: {error.message}"
            ) from None

    async def release(self, replica_id: str) -> None:
        """Remove the replica from every lease, and end leases without users."""
        # From every lease: the configuration that named the replica's group may have changed since.
        for name in await self._actors.names(PREFIX):
            with contextlib.suppress(errors.Unavailable):
                if await self._actors.call(name, "release", replica_id):
                    await self._actors.remove(name)
