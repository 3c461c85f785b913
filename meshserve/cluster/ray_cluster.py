"""The controller's port to Ray: workers and gateways as named actors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import ray

from meshserve.cluster import (
    allocator_env,
    gateway_actor,
    named_actors,
    ray_replicas,
    replica_actor,
    worker_actor,
)
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import (
    catalog_sync,
    desired,
    events,
    model,
    model_stats,
    reports,
    snapshots,
)

WORKER = "worker:"
GATEWAY = "gateway:"
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Makers:
    """Functions that build the parts inside their actors, and the folder of their sockets.

    `host` is the address that workers listen on; an empty one means the address of their node.
    """

    worker: worker_actor.WorkerMaker
    gateway: gateway_actor.GatewayMaker
    replica: replica_actor.ReplicaMaker
    run_dir: str
    host: str = ""


class RayCluster(ray_replicas.RayReplicas):
    """Implements `cluster_control.Cluster`; RayReplicas is the part of it for LLMs."""

    def __init__(self, makers: Makers) -> None:
        super().__init__(makers.replica, makers.run_dir, makers.host)
        self._makers = makers

    # Workers

    async def living_workers(self) -> tuple[events.LivingWorker, ...]:
        """Return the workers that run, also those that an earlier controller started."""
        names = await self._actors.names(WORKER)
        answers = await asyncio.gather(
            *(self._actors.call(name, "living") for name in names), return_exceptions=True
        )
        # A worker that is still starting answers by an error. It is started anew, in place of that
        # one.
        return tuple(answer for answer in answers if isinstance(answer, events.LivingWorker))

    async def start_worker(
        self, worker_id: str, settings: desired.WorkerSettings
    ) -> events.WorkerStarted:
        """Start a worker's process, in place of any earlier one; return once it listens."""
        name = WORKER + worker_id
        # A worker that was lost may still hold its name for a moment, or be stuck.
        await self._actors.remove(name)
        address = model.ServerAddress(worker_id, self._run_dir, host=self._host)
        options = {
            # No CPU is reserved: workers share the cores, also with Envoy and engines.
            "num_cpus": 0,
            "num_gpus": 1 if settings.device == "cuda" else 0,
            "scheduling_strategy": "SPREAD",
            # The controller restarts workers itself, with a back-off and a fresh catalog.
            "max_restarts": 0,
            "runtime_env": {"env_vars": allocator_env.variables(settings.allocator)},
        }
        await self._actors.create(
            name, worker_actor.WorkerActor, options, self._makers.worker, address, settings
        )
        return await self._actors.call(name, "start", timeout_s=START_S)

    async def stop_worker(self, worker_id: str) -> None:
        """Let the worker answer what it accepted, then end its process."""
        await self._actors.stop(WORKER + worker_id, ray_replicas.STOP_S)

    async def wait_until_lost(self, worker_id: str) -> str:
        """Return the reason once the worker's process has ended; at once if it does not exist."""
        return await self._actors.wait_until_ended(WORKER + worker_id)

    async def send_changes(self, worker_id: str, step: catalog_sync.SyncStep) -> None:
        """Send the worker one step of its catalog."""
        await self._actors.call(WORKER + worker_id, "send_changes", step)

    async def ensure_loaded(self, worker_id: str, id_: model.ModelId, timeout_s: float) -> None:
        """Return once the worker has the model in memory."""
        limit_s = timeout_s + named_actors.CALL_S
        await self._actors.call(
            WORKER + worker_id, "ensure_loaded", id_, timeout_s, timeout_s=limit_s
        )

    async def unload(self, worker_id: str, id_: model.ModelId) -> None:
        """Have the worker evict its copy as soon as no request uses it."""
        await self._actors.call(WORKER + worker_id, "unload", id_)

    async def pin(self, worker_id: str, id_: model.ModelId, *, is_pinned: bool) -> None:
        """Have the worker protect its copy from eviction, or no longer."""
        await self._actors.call(WORKER + worker_id, "pin", id_, is_pinned)

    async def copies(
        self, worker_id: str, ids: tuple[model.ModelId, ...]
    ) -> tuple[reports.CopyReport, ...]:
        """Return the present state of the worker's copies of these models."""
        return await self._actors.call(WORKER + worker_id, "copies", ids)

    async def report(self, worker_id: str, since: int) -> reports.WorkerReport:
        """Return the worker's state and the copies that changed since its report `since`.

        The report has all copies if `since` was not the worker's last one.
        """
        return await self._actors.call(WORKER + worker_id, "report", since)

    async def stats(self, worker_id: str) -> dict[model.ModelId, model_stats.ModelStats]:
        """Return the worker's request statistics by model since its process began."""
        return await self._actors.call(WORKER + worker_id, "stats")

    # Gateways

    async def start_gateway(
        self, node: str, snap: snapshots.GatewaySnapshot
    ) -> reports.GatewayReport:
        """Start the node's gateway, or configure the one that runs; return once it serves."""
        name = GATEWAY + node
        if not await self._actors.exists(name):
            options = {
                "num_cpus": 0,
                "scheduling_strategy": named_actors.on_node(node),
                "max_restarts": 0,
            }
            arguments = (self._makers.gateway, self._run_dir)
            await self._actors.create(name, gateway_actor.GatewayActor, options, *arguments)
        return await self._actors.call(name, "start", snap, timeout_s=START_S)

    async def configure_gateway(self, node: str, snap: snapshots.GatewaySnapshot) -> None:
        """Have the node's gateway route by this snapshot; return once it does."""
        await self._actors.call(GATEWAY + node, "apply", snap, timeout_s=START_S)

    async def stop_gateway(self, node: str) -> None:
        """Let the gateway answer what it accepted, then end it."""
        await self._actors.stop(GATEWAY + node, ray_replicas.STOP_S)

    async def gateway_report(self, node: str) -> reports.GatewayReport:
        """Return the gateway's present state."""
        return await self._actors.call(GATEWAY + node, "report")

    # The cluster

    async def capacity(self) -> cluster_control.WorkerCapacity:
        """Return the CPU cores and GPUs of all nodes together."""
        resources = await asyncio.to_thread(ray.cluster_resources)
        return cluster_control.WorkerCapacity(
            int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        )

    async def nodes(self) -> tuple[str, ...]:
        """Return the ids of all living nodes. Raises Unavailable if Ray does not answer."""
        return tuple(sorted(node["NodeID"] for node in await ray_replicas.living_nodes()))
