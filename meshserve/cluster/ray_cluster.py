"""The controller's port to Ray: workers, gateways and replicas as named actors."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

import ray

from meshserve import errors
from meshserve.cluster import (
    actor_process,
    allocator_env,
    cluster_nodes,
    gateway_actor,
    named_actors,
    replica_actor,
    replica_placement,
    worker_actor,
    worker_placement,
)
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import (
    catalog_sync,
    desired,
    events,
    llm_events,
    llm_spec,
    model,
    model_stats,
    nodes,
    reports,
    snapshots,
)

WORKER = "worker:"
GATEWAY = "gateway:"
REPLICA = "replica:"
START_S = 60.0
START_MARGIN_S = 30.0
"""Added to the timeout of the start call, so that the server times out first, with the reason."""

STOP_S = actor_process.DRAIN_S + 30.0
SLEEP_S = actor_process.DRAIN_S + 120.0
WAKE_S = 600.0
UPDATE_S = 600.0
"""Long, because adapters may have to be downloaded."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Makers:
    """Functions that build the parts inside their actors, and the folder of their sockets.

    With a `secret`, workers and replicas listen on the address of their node too, for gateways of
    other nodes, and all requests must bring it.
    """

    worker: worker_actor.WorkerMaker
    gateway: gateway_actor.GatewayMaker
    replica: replica_actor.ReplicaMaker
    run_dir: str
    secret: str = field(default="", repr=False)


class RayCluster:
    """Implements `cluster_control.Cluster`."""

    def __init__(self, makers: Makers) -> None:
        self._makers = makers
        self._actors = named_actors.NamedActors()
        self._workers = worker_placement.WorkerPlacements()
        self._placements = replica_placement.ReplicaPlacements(self._actors)
        self._run_dir = makers.run_dir

    def _address(self, id_: str) -> model.ServerAddress:
        return model.ServerAddress(id_, self._run_dir, secret=self._makers.secret)

    # Workers

    async def living_workers(self) -> tuple[events.LivingWorker, ...]:
        """Return the workers that run, also those that an earlier controller started."""
        names = await self._actors.names(WORKER)
        answers = await asyncio.gather(
            *(self._actors.call(name, "living") for name in names), return_exceptions=True
        )
        # A worker that is still starting answers by an error. It is started anew, in place of that
        # one.
        living = tuple(answer for answer in answers if isinstance(answer, events.LivingWorker))
        self._workers.adopt(living)
        return living

    async def start_worker(
        self,
        worker_id: str,
        settings: desired.WorkerSettings,
        avoided: frozenset[str] = frozenset(),
    ) -> events.WorkerStarted:
        """Start a worker's process, in place of any earlier one; return once it listens."""
        name = WORKER + worker_id
        # A worker that was lost may still hold its name for a moment, or be stuck.
        await self._actors.remove(name)
        address = self._address(worker_id)
        options = {
            # No CPU is reserved: workers share the cores, also with Envoy and engines.
            "num_cpus": 0,
            "num_gpus": 1 if settings.device == "cuda" else 0,
            "scheduling_strategy": await self._workers.choose(worker_id, settings, avoided),
            # The controller restarts workers itself, with a back-off and a fresh catalog.
            "max_restarts": 0,
            "runtime_env": {"env_vars": allocator_env.variables(settings.allocator)},
        }
        arguments = (self._makers.worker, address, settings)
        try:
            await self._actors.create(name, worker_actor.WorkerActor, options, *arguments)
            return await self._actors.call(name, "start", timeout_s=START_S)
        except errors.Unavailable:
            self._workers.note_failure(worker_id)
            raise

    async def stop_worker(self, worker_id: str) -> None:
        """Let the worker answer what it accepted, then end its process."""
        await self._actors.stop(WORKER + worker_id, STOP_S)
        self._workers.forget(worker_id)

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
        if not await self._answers(name):
            # One that is stuck is replaced; its Envoy goes on under the next one.
            await self._actors.remove(name)
            options = {
                "num_cpus": 0,
                "scheduling_strategy": named_actors.on_node(node),
                "max_restarts": 0,
            }
            arguments = (self._makers.gateway, self._run_dir, bool(self._makers.secret))
            await self._actors.create(name, gateway_actor.GatewayActor, options, *arguments)
        return await self._actors.call(name, "start", snap, timeout_s=START_S)

    async def _answers(self, name: str) -> bool:
        try:
            await self._actors.call(name, "report")
        except errors.Unavailable:
            return False
        return True

    async def configure_gateway(self, node: str, snap: snapshots.GatewaySnapshot) -> None:
        """Have the node's gateway route by this snapshot; return once it does."""
        await self._actors.call(GATEWAY + node, "apply", snap, timeout_s=START_S)

    async def stop_gateway(self, node: str) -> None:
        """Let the gateway answer what it accepted, then end it."""
        await self._actors.stop(GATEWAY + node, STOP_S)

    async def wait_until_gateway_lost(self, node: str) -> str:
        """Return the reason once the gateway's process has ended; at once if it does not exist."""
        return await self._actors.wait_until_ended(GATEWAY + node)

    async def gateway_report(self, node: str) -> reports.GatewayReport:
        """Return the gateway's present state."""
        return await self._actors.call(GATEWAY + node, "report")

    # Replicas

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
    ) -> llm_events.ReplicaReady:
        """Start a replica in place of an earlier one; return once it has generated a token.

        Raises a MeshError with the reason if it does not start.
        """
        name = REPLICA + replica_id
        begun_s = time.monotonic()
        await self._remove(replica_id)
        try:
            placement = await self._placements.place(replica_id, spec, plan)
            address = self._address(replica_id)
            options = {"num_cpus": 0, "max_restarts": 0, **placement.options}
            arguments = (self._makers.replica, address, spec, plan.backend)
            await self._actors.create(name, replica_actor.ReplicaActor, options, *arguments)
            endpoint, pid = await self._actors.call(
                name, "start", placement.gpus, timeout_s=spec.start_timeout_s + START_MARGIN_S
            )
        except errors.MeshError:
            await self._try_to_remove(replica_id)
            raise
        return llm_events.ReplicaReady(replica_id, endpoint, pid, time.monotonic() - begun_s)

    async def update_replica(self, replica_id: str, spec: llm_spec.LlmSpec) -> None:
        """Have a running replica follow another spec. Raises MeshError if it goes on as before."""
        await self._actors.call(REPLICA + replica_id, "update", spec, timeout_s=UPDATE_S)

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

    async def wake_replica(self, replica_id: str) -> llm_events.ReplicaWoken:
        """Wake the replica's engine; return once it has generated a token again."""
        begun_s = time.monotonic()
        await self._actors.call(REPLICA + replica_id, "wake", timeout_s=WAKE_S)
        return llm_events.ReplicaWoken(replica_id, time.monotonic() - begun_s)

    async def replica_report(self, replica_id: str) -> llm_spec.LlmReport:
        """Return the replica's present state."""
        return await self._actors.call(REPLICA + replica_id, "report")

    async def _try_to_remove(self, replica_id: str) -> None:
        # A failure here must not hide the reason why the start failed; `_remove` runs again
        # before the next start and after the next stop.
        try:
            await self._remove(replica_id)
        except errors.Unavailable as error:
            logger.warning("what is left of replica %s: %s", replica_id, error.message)

    async def _remove(self, replica_id: str) -> None:
        """Kill the replica's actor and free its GPUs."""
        await self._actors.remove(REPLICA + replica_id)
        await self._placements.release(replica_id)

    # The cluster

    async def capacity(self) -> cluster_control.WorkerCapacity:
        """Return the CPU cores and GPUs of all nodes together."""
        resources = await asyncio.to_thread(ray.cluster_resources)
        return cluster_control.WorkerCapacity(
            int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        )

    async def node_capacities(self) -> tuple[llm_spec.NodeCapacity, ...]:
        """Return the GPUs and cores of each node. Raises Unavailable if Ray does not answer."""
        return await self._placements.node_capacities()

    async def nodes(self) -> tuple[nodes.ClusterNode, ...]:
        """Return all living nodes. Raises Unavailable if Ray does not answer."""
        return await cluster_nodes.living_nodes()

    async def end_node(self, node: str) -> None:
        """Have Ray drain and end the node. Raises Unavailable if it refuses."""
        await cluster_nodes.end_node(node)
