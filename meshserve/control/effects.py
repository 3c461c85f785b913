"""Performs the mesh's commands on a cluster. What comes of each is the next event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from meshserve import errors
from meshserve.control import replica_effects, serial_queue
from meshserve.core.interfaces import cluster_control as ports
from meshserve.core.values import catalog_sync, commands, events, snapshots

CALL_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 120.0
SETTLED_TIMEOUT_S = 5.0
AGAIN_AFTER_S = 2.0

logger = logging.getLogger(__name__)


class EffectsHost(Protocol):
    """Where events go, and where a gateway's snapshot comes from."""

    def post(self, event: events.Event) -> None:
        """Take an event in."""
        ...

    def gateway_snapshot(self, node: str) -> snapshots.GatewaySnapshot:
        """What the node's gateway is to be configured from, now."""
        ...


class Effects:
    """All lanes. A command that fails because its worker or gateway is gone is forgotten: whoever watches it says that it is lost."""

    def __init__(self, cluster: ports.Cluster, clock: ports.Clock, desk: EffectsHost) -> None:
        self._cluster = cluster
        self._clock = clock
        self._desk = desk
        self._workers: dict[str, serial_queue.SerialQueue[commands.WorkerCommand]] = {}
        self._gateways: dict[str, serial_queue.SerialQueue[commands.GatewayCommand]] = {}
        self._replicas = replica_effects.ReplicaEffects(cluster, desk.post)

    def perform(
        self, command: commands.WorkerCommand | commands.GatewayCommand | commands.ReplicaCommand
    ) -> None:
        """Have the command performed after those given before for the same worker, gateway or replica."""
        if isinstance(command, commands.ReplicaCommand):
            self._replicas.perform(command)
        elif isinstance(
            command, commands.StartGateway | commands.ConfigureGateway | commands.StopGateway
        ):
            self._gateway_lane(command.node).put(
                command, is_once=isinstance(command, commands.ConfigureGateway)
            )
        else:
            self._worker_lane(command.worker_id).put(command)

    def _worker_lane(self, worker_id: str) -> serial_queue.SerialQueue[commands.WorkerCommand]:
        return self._workers.setdefault(
            worker_id, serial_queue.SerialQueue(f"worker {worker_id}", self._on_worker)
        )

    def _gateway_lane(self, node: str) -> serial_queue.SerialQueue[commands.GatewayCommand]:
        return self._gateways.setdefault(
            node, serial_queue.SerialQueue(f"gateway {node}", self._on_gateway)
        )

    def forget_worker(self, worker_id: str) -> None:
        """Drop what was to be done with a worker that is gone."""
        lane = self._workers.pop(worker_id, None)
        if lane is not None:
            lane.clear()

    async def wait_until_settled(self) -> None:
        """Return when all that was given so far for workers and gateways is performed, or a few seconds have gone by."""
        await self._within(asyncio.gather(*(lane.wait_until_settled() for lane in self._lanes())))

    async def _gateways_settled(self) -> None:
        await self._within(
            asyncio.gather(*(lane.wait_until_settled() for lane in self._gateways.values()))
        )

    async def _within(self, waiting: asyncio.Future[list[None]]) -> None:
        try:
            async with asyncio.timeout(SETTLED_TIMEOUT_S):
                await waiting
        except TimeoutError:
            logger.warning("commands are still being performed after %s s", SETTLED_TIMEOUT_S)

    def close(self) -> None:
        """Let go of everything."""
        self._replicas.close()
        for lane in self._lanes():
            lane.clear()

    def _lanes(self) -> list[serial_queue.SerialQueue[Any]]:
        return [*self._workers.values(), *self._gateways.values()]

    async def _on_worker(self, command: commands.WorkerCommand) -> None:
        match command:
            case commands.StartWorker():
                await self._start(command)
            case commands.StopWorker():
                await self._stop(command)
            case commands.SendChanges():
                await self._send(command)
            case commands.EnsureLoaded():
                self._worker_lane(command.worker_id).aside(self._ensure(command))
            case commands.Pin() | commands.Unpin():
                await self._pin(command)

    async def _start(self, command: commands.StartWorker) -> None:
        try:
            started = await self._cluster.start_worker(command.worker_id, command.settings)
        except errors.MeshError as error:
            logger.warning("worker %s could not be started: %s", command.worker_id, error.message)
            self._desk.post(events.WorkerLost(command.worker_id, error.message))
        else:
            self._desk.post(started)

    async def _stop(self, command: commands.StopWorker) -> None:
        await self._gateways_settled()
        await self._try(
            self._cluster.stop_worker, command.worker_id, f"stopping worker {command.worker_id}"
        )
        self._desk.post(events.WorkerStopped(command.worker_id))

    async def _try(self, stop: Callable[[str], Awaitable[None]], name: str, doing: str) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await stop(name)
        except (errors.MeshError, TimeoutError) as error:
            logger.warning("%s: %s", doing, error)

    async def _send(self, command: commands.SendChanges) -> None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._cluster.send_changes(command.worker_id, command.step)
        except (errors.Unavailable, TimeoutError):
            self._worker_lane(command.worker_id).aside(self._sync_later(command))
        except catalog_sync.MissedStep:
            self._desk.post(events.SyncFailed(command.worker_id, command.step.revision))
        else:
            self._desk.post(events.WorkerSynced(command.worker_id, command.step.revision))

    async def _sync_later(self, command: commands.SendChanges) -> None:
        """Either the worker is gone, and this with it, or it was only slow: then it needs the whole catalog."""
        await self._clock.sleep(AGAIN_AFTER_S)
        self._desk.post(events.SyncFailed(command.worker_id, command.step.revision))

    async def _ensure(self, command: commands.EnsureLoaded) -> None:
        failure = ""
        try:
            await self._cluster.ensure_loaded(command.worker_id, command.id, command.timeout_s)
        except errors.MeshError as error:
            failure = error.message
            logger.warning(
                "model %s is not loaded on %s: %s", command.id, command.worker_id, failure
            )
        self._desk.post(events.CopyEnsured(command.worker_id, command.id, failure))

    async def _pin(self, command: commands.Pin | commands.Unpin) -> None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._cluster.pin(
                    command.worker_id, command.id, is_pinned=isinstance(command, commands.Pin)
                )
        except (errors.MeshError, TimeoutError) as error:
            logger.warning("pinning of %s on %s: %s", command.id, command.worker_id, error)

    async def _on_gateway(self, command: commands.GatewayCommand) -> None:
        match command:
            case commands.StartGateway():
                await self._start_gateway(command.node)
            case commands.ConfigureGateway():
                await self._configure_gateway(command.node)
            case commands.StopGateway():
                await self._try(
                    self._cluster.stop_gateway,
                    command.node,
                    f"stopping the gateway on {command.node}",
                )
                self._desk.post(events.GatewayStopped(command.node))

    async def _start_gateway(self, node: str) -> None:
        snap = self._desk.gateway_snapshot(node)
        try:
            report = await self._cluster.start_gateway(node, snap)
        except errors.MeshError as error:
            logger.warning("the gateway on %s could not be started: %s", node, error.message)
            self._desk.post(events.GatewayLost(node, error.message))
        else:
            self._desk.post(events.GatewayReported(report))
            self._desk.post(events.GatewayConfigured(node, snap.revision))

    async def _configure_gateway(self, node: str) -> None:
        snap = self._desk.gateway_snapshot(node)
        try:
            await self._cluster.configure_gateway(node, snap)
        except errors.Unavailable:
            return
        except errors.MeshError as error:
            logger.warning("the gateway on %s goes on as before: %s", node, error.message)
            self._gateway_lane(node).aside(self._configure_later(node))
        else:
            self._desk.post(events.GatewayConfigured(node, snap.revision))

    async def _configure_later(self, node: str) -> None:
        await self._clock.sleep(AGAIN_AFTER_S)
        self.perform(commands.ConfigureGateway(node))
