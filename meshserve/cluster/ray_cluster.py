"""The control plane's port to Ray: workers and gateways as named actors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import ray
from ray import exceptions
from ray.util import scheduling_strategies

from meshserve import errors
from meshserve.cluster import actors, allocator_env, named_actors, ray_replicas, replica_actor
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
CONTROLLER = "controller"
START_S = 60.0
STOP_S = actors.DRAIN_S + 30.0


@dataclass(frozen=True, slots=True)
class Makers:
    """How the parts are built inside their actors, and where. `host` is what workers listen on; empty: the address of their node."""

    worker: actors.WorkerMaker
    gateway: actors.GatewayMaker
    replica: replica_actor.ReplicaMaker
    run_dir: str
    host: str = ""


class RayCluster(ray_replicas.RayReplicas):
    """Implements control_ports.Cluster."""

    def __init__(self, makers: Makers) -> None:
        self._makers = makers
        self._actors = named_actors.NamedActors()
        super().__init__(self._actors, makers.replica, makers.run_dir, makers.host)

    # Workers

    async def living_workers(self) -> tuple[events.LivingWorker, ...]:
        """The workers that run, whoever started them."""
        names = await self._actors.names(WORKER)
        found = await asyncio.gather(
            *(self._actors.call(name, "living") for name in names), return_exceptions=True
        )
        return tuple(each for each in found if isinstance(each, events.LivingWorker))

    async def start_worker(
        self, worker_id: str, settings: desired.WorkerSettings
    ) -> events.WorkerStarted:
        """Start its process, in place of any that is left of an earlier one; returns once it listens."""
        name = WORKER + worker_id
        await self._actors.remove(name)
        address = model.ServerAddress(
            worker_id, self._makers.run_dir, "", self._makers.host or ray_replicas.node_address()
        )
        gpus = 1 if settings.device == "cuda" else 0
        around = {"env_vars": allocator_env.variables(settings.allocator)}
        options = {
            "num_cpus": 0,
            "num_gpus": gpus,
            "scheduling_strategy": "SPREAD",
            "max_restarts": 0,
            "runtime_env": around,
        }
        await self._actors.create(
            name, actors.WorkerActor, options, self._makers.worker, address, settings
        )
        started: events.WorkerStarted = await self._actors.call(name, "start", timeout_s=START_S)
        return started

    async def stop_worker(self, worker_id: str) -> None:
        """Let it answer what it has accepted, end it, and leave nothing behind."""
        await self._actors.stop(WORKER + worker_id, STOP_S)

    async def wait_until_lost(self, worker_id: str) -> str:
        """Returns the reason once its process has ended in whatever way; at once where there is none."""
        return await self._actors.wait_until_ended(WORKER + worker_id)

    async def send_changes(self, worker_id: str, step: catalog_sync.SyncStep) -> None:
        """Have it take a step of its catalog in."""
        await self._actors.call(WORKER + worker_id, "send_changes", step)

    async def ensure_loaded(self, worker_id: str, id_: model.ModelId, timeout_s: float) -> None:
        """Returns once it has the model in memory."""
        await self._actors.call(
            WORKER + worker_id,
            "ensure_loaded",
            id_,
            timeout_s,
            timeout_s=timeout_s + named_actors.CALL_S,
        )

    async def unload(self, worker_id: str, id_: model.ModelId) -> None:
        """Have its copy go as soon as nobody uses it."""
        await self._actors.call(WORKER + worker_id, "unload", id_)

    async def pin(self, worker_id: str, id_: model.ModelId, *, is_pinned: bool) -> None:
        """Have it keep its copy from when it has one, or treat it like any other again."""
        await self._actors.call(WORKER + worker_id, "pin", id_, is_pinned)

    async def copies(
        self, worker_id: str, ids: tuple[model.ModelId, ...]
    ) -> tuple[reports.CopyReport, ...]:
        """How its copies of these models are now."""
        found: tuple[reports.CopyReport, ...] = await self._actors.call(
            WORKER + worker_id, "copies", ids
        )
        return found

    async def report(self, worker_id: str, since: int) -> reports.WorkerReport:
        """How it is now, and what has changed of its copies since its report `since`; all of them where that was not its last."""
        found: reports.WorkerReport = await self._actors.call(WORKER + worker_id, "report", since)
        return found

    async def tallies(self, worker_id: str) -> dict[model.ModelId, model_stats.ModelStats]:
        """What it has counted for each model since its process began."""
        found: dict[model.ModelId, model_stats.ModelStats] = await self._actors.call(
            WORKER + worker_id, "tallies"
        )
        return found

    # Gateways

    async def start_gateway(
        self, node: str, snap: snapshots.GatewaySnapshot
    ) -> reports.GatewayReport:
        """Start it, or take over the one that runs and configure it; returns once it serves."""
        name = GATEWAY + node
        if not await self._actors.exists(name):
            there = scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "scheduling_strategy": there, "max_restarts": 0}
            await self._actors.create(
                name, actors.GatewayActor, options, self._makers.gateway, self._makers.run_dir
            )
        started: reports.GatewayReport = await self._actors.call(
            name, "start", snap, timeout_s=START_S
        )
        return started

    async def configure_gateway(self, node: str, snap: snapshots.GatewaySnapshot) -> None:
        """Have it serve by this snapshot; returns once it does."""
        await self._actors.call(GATEWAY + node, "apply", snap, timeout_s=START_S)

    async def stop_gateway(self, node: str) -> None:
        """Let it answer what it has accepted, and end it."""
        await self._actors.stop(GATEWAY + node, STOP_S)

    async def gateway_report(self, node: str) -> reports.GatewayReport:
        """How it is now."""
        found: reports.GatewayReport = await self._actors.call(GATEWAY + node, "report")
        return found

    # The cluster

    async def capacity(self) -> cluster_control.WorkerCapacity:
        """What there is for workers, all nodes together."""
        resources = await asyncio.to_thread(ray.cluster_resources)
        return cluster_control.WorkerCapacity(
            int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        )

    async def nodes(self) -> tuple[str, ...]:
        """The nodes that shall have a gateway: all that live."""
        try:
            nodes = await asyncio.to_thread(ray.nodes)
        except exceptions.RayError as error:
            raise errors.Unavailable(f"Ray does not answer: {error}") from error
        return tuple(sorted(node["NodeID"] for node in nodes if node["Alive"]))
