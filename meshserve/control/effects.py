"""Performs the mesh's commands on the cluster; each outcome is an event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, assert_never

from meshserve import errors, tasks
from meshserve.control import serial_queue
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import (
    catalog_sync,
    commands,
    events,
    gateway_events,
    llm_events,
    model,
    reports,
    snapshots,
)

# A worker that hangs must end its commands too, because users wait for some of them.
CALL_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 120.0
# A gateway that hangs must not hold up the stop of a worker for longer.
SETTLED_TIMEOUT_S = 5.0
RETRY_S = 2.0
PERMANENT = (errors.InvalidRequest, errors.MissingExtra, errors.Unloadable, errors.Unsupported)
"""Errors of a start that every further try would end with."""

logger = logging.getLogger(__name__)
Queue = serial_queue.SerialQueue[Any]
ProcessCommand = (
    commands.WorkerCommand
    | commands.GatewayCommand
    | commands.ReplicaCommand
    | commands.NodeCommand
)


class Effects:
    """One queue for each worker, gateway and replica; outcomes go to `post` as events.

    `gateway_snapshot` returns the present snapshot for a node's gateway. A command that fails
    because its process has ended is dropped: the monitor reports the loss.
    """

    def __init__(
        self,
        cluster: cluster_control.Cluster,
        clock: cluster_control.Clock,
        post: Callable[[events.Event], None],
        gateway_snapshot: Callable[[str], snapshots.GatewaySnapshot],
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._post = post
        self._gateway_snapshot = gateway_snapshot
        # One for each process, because a slow one must not hold up the others.
        self._queues: dict[tuple[commands.ProcessKind, str], Queue] = {}

    def perform(self, command: ProcessCommand) -> None:
        """Perform the command after those given before for the same process."""
        match command:
            case commands.AbandonWorker():
                queue = self._queues.pop(("worker", command.worker_id), None)
                if queue is not None:
                    queue.clear()
            case commands.ConfigureGateway():
                # The snapshot is taken when the command is performed, so one waiting is enough.
                self._queue("gateway", command.node).put(command, is_once=True)
            case commands.StartGateway() | commands.StopGateway():
                self._queue("gateway", command.node).put(command)
            case commands.StopReplica():
                # A start takes minutes, so a stop cancels it instead of waiting.
                self._queue("replica", command.replica_id).interrupt()
                self._queue("replica", command.replica_id).put(command)
            case (
                commands.StartReplica()
                | commands.UpdateReplica()
                | commands.SleepReplica()
                | commands.WakeReplica()
            ):
                self._queue("replica", command.replica_id).put(command)
            case commands.EndNode():
                tasks.spawn(self._end_node(command.node), f"end node {command.node}")
            case _:
                self._queue("worker", command.worker_id).put(command)

    def _queue(self, kind: commands.ProcessKind, id_: str) -> Queue:
        queue = self._queues.get((kind, id_))
        if queue is None:
            performers: dict[str, serial_queue.Perform[Any]] = {
                "worker": self._on_worker,
                "gateway": self._on_gateway,
                "replica": self._on_replica,
            }
            queue = serial_queue.SerialQueue(f"{kind} {id_}", performers[kind])
            self._queues[kind, id_] = queue
        return queue

    async def _end_node(self, node: str) -> None:
        try:
            await self._cluster.end_node(node)
        except errors.MeshError as error:
            logger.warning("%s", error.message)

    async def wait_until_settled(self, *kinds: commands.ProcessKind) -> None:
        """Return when all commands so far for processes of these kinds are performed.

        Returns after SETTLED_TIMEOUT_S seconds at the latest.
        """
        queues = [queue for (kind, _), queue in self._queues.items() if kind in kinds]
        try:
            async with asyncio.timeout(SETTLED_TIMEOUT_S):
                await asyncio.gather(*(queue.wait_until_settled() for queue in queues))
        except TimeoutError:
            logger.warning("commands are still being performed after %s s", SETTLED_TIMEOUT_S)

    def close(self) -> None:
        """Drop all commands; the next controller ends processes that were half started."""
        for queue in self._queues.values():
            queue.clear()

    # Workers

    async def _on_worker(self, command: commands.WorkerCommand) -> None:
        match command:
            case commands.StartWorker():
                await self._start_worker(command)
            case commands.StopWorker():
                await self._stop_worker(command)
            case commands.SendChanges():
                await self._send(command)
            case commands.EnsureLoaded():
                # A load may take minutes, and the catalog must not wait for it.
                self._queue("worker", command.worker_id).run_in_background(
                    self._ensure_loaded(command)
                )
            case commands.Unload():
                await self._unload(command)
            case commands.Pin() | commands.Unpin():
                await self._pin(command)
            case commands.AbandonWorker():
                raise AssertionError("performed at once, never queued")
            case _:
                assert_never(command)

    async def _start_worker(self, command: commands.StartWorker) -> None:
        try:
            started = await self._cluster.start_worker(
                command.worker_id, command.settings, command.avoided
            )
        except errors.MeshError as error:
            logger.warning("worker %s could not be started: %s", command.worker_id, error.message)
            self._post(events.WorkerLost(command.worker_id, error.message))
        else:
            self._post(started)

    async def _stop_worker(self, command: commands.StopWorker) -> None:
        worker_id = command.worker_id
        if command.reason:
            logger.warning("worker %s: %s", worker_id, command.reason)
        # Gateways must know that the worker takes no more requests before it stops taking them.
        await self.wait_until_settled("gateway")
        await self._try_stop(self._cluster.stop_worker, worker_id, f"stopping worker {worker_id}")
        self._post(events.WorkerStopped(worker_id))

    async def _try_stop(
        self, stop: Callable[[str], Awaitable[None]], name: str, action: str
    ) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await stop(name)
        except (errors.MeshError, TimeoutError) as error:
            logger.warning("%s: %s", action, error)

    async def _send(self, command: commands.SendChanges) -> None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._cluster.send_changes(command.worker_id, command.step)
        except (errors.Unavailable, TimeoutError):
            self._queue("worker", command.worker_id).run_in_background(
                self._fail_sync_later(command)
            )
        except catalog_sync.MissedStep:
            self._post(events.SyncFailed(command.worker_id, command.step.revision))
        else:
            self._post(events.WorkerSynced(command.worker_id, command.step.revision))

    async def _fail_sync_later(self, command: commands.SendChanges) -> None:
        # The loss of the worker clears its queue and cancels this. A worker that was only slow
        # needs the full catalog, which SyncFailed brings.
        await self._clock.sleep(RETRY_S)
        self._post(events.SyncFailed(command.worker_id, command.step.revision))

    async def _ensure_loaded(self, command: commands.EnsureLoaded) -> None:
        error, copy = await self._end_of(
            command,
            lambda: self._cluster.ensure_loaded(command.worker_id, command.id, command.timeout_s),
        )
        if error is not None:
            logger.warning(
                "model %s is not loaded on %s: %s", command.id, command.worker_id, error.message
            )
        self._post(events.CopyEnsured(command.worker_id, command.id, error, copy, command.ticket))

    async def _unload(self, command: commands.Unload) -> None:
        async def unload() -> None:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._cluster.unload(command.worker_id, command.id)

        error, copy = await self._end_of(command, unload)
        self._post(events.CopyUnloaded(command.worker_id, command.id, error, copy, command.ticket))

    async def _end_of(
        self,
        command: commands.EnsureLoaded | commands.Unload,
        call: Callable[[], Awaitable[None]],
    ) -> tuple[errors.MeshError | None, reports.CopyReport | None]:
        """Await the call; return its error, if any, and the worker's copy afterwards."""
        failure: errors.MeshError | None = None
        try:
            try:
                await call()
            except errors.MeshError as error:
                failure = error
            except TimeoutError:
                failure = errors.Unavailable(f"worker {command.worker_id} does not answer")
            return failure, await self._copy(command.worker_id, command.id)
        except Exception as error:
            # A bug of ours must end the command too: a user may wait for the ticket.
            logger.exception("%s failed", type(command).__name__)
            return errors.MeshError(f"the controller failed: {type(error).__name__}"), None

    async def _copy(self, worker_id: str, id_: model.ModelId) -> reports.CopyReport | None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                copies = await self._cluster.copies(worker_id, (id_,))
        except (errors.MeshError, TimeoutError):
            return None
        return copies[0] if copies else None

    async def _pin(self, command: commands.Pin | commands.Unpin) -> None:
        is_pinned = isinstance(command, commands.Pin)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._cluster.pin(command.worker_id, command.id, is_pinned=is_pinned)
        except (errors.MeshError, TimeoutError) as error:
            logger.warning("pinning of %s on %s: %s", command.id, command.worker_id, error)

    # Gateways

    async def _on_gateway(self, command: commands.GatewayCommand) -> None:
        match command:
            case commands.StartGateway():
                await self._start_gateway(command.node)
            case commands.ConfigureGateway():
                await self._configure_gateway(command.node)
            case commands.StopGateway():
                action = f"stopping the gateway on {command.node}"
                await self._try_stop(self._cluster.stop_gateway, command.node, action)
                self._post(gateway_events.GatewayStopped(command.node))
            case _:
                assert_never(command)

    async def _start_gateway(self, node: str) -> None:
        # The snapshot is of now, not of the order: changes since then need no second configuration.
        snapshot = self._gateway_snapshot(node)
        try:
            report = await self._cluster.start_gateway(node, snapshot)
        except errors.MeshError as error:
            logger.warning("the gateway on %s could not be started: %s", node, error.message)
            self._post(gateway_events.GatewayLost(node, error.message))
        else:
            self._post(gateway_events.GatewayReported(report))
            self._post(gateway_events.GatewayConfigured(node, snapshot.revision))

    async def _configure_gateway(self, node: str) -> None:
        snapshot = self._gateway_snapshot(node)
        try:
            await self._cluster.configure_gateway(node, snapshot)
        except errors.Unavailable:
            # The gateway has ended; its restart brings the newest snapshot.
            return
        except errors.MeshError as error:
            # Envoy has refused the snapshot and serves by the previous one.
            logger.warning("the gateway on %s goes on as before: %s", node, error.message)
            self._queue("gateway", node).run_in_background(self._configure_later(node))
        else:
            self._post(gateway_events.GatewayConfigured(node, snapshot.revision))

    async def _configure_later(self, node: str) -> None:
        await self._clock.sleep(RETRY_S)
        self.perform(commands.ConfigureGateway(node))

    # Replicas

    async def _on_replica(self, command: commands.ReplicaCommand) -> None:
        try:
            self._post(await self._outcome(command))
        except errors.MeshError as error:
            logger.warning("%s %s: %s", type(command).__name__, command.replica_id, error.message)
            is_permanent = isinstance(error, PERMANENT)
            self._post(
                llm_events.ReplicaLost(command.replica_id, error.message, is_permanent=is_permanent)
            )

    async def _updated(self, command: commands.UpdateReplica) -> llm_events.ReplicaUpdated:
        reason = ""
        try:
            await self._cluster.update_replica(command.replica_id, command.spec)
        except errors.MeshError as error:
            # It serves as before: this is no loss of the replica.
            logger.warning("replica %s is not updated: %s", command.replica_id, error.message)
            reason = error.message
        return llm_events.ReplicaUpdated(command.replica_id, command.spec, reason)

    async def _outcome(self, command: commands.ReplicaCommand) -> llm_events.LlmEvent:
        replica_id = command.replica_id
        match command:
            case commands.StartReplica():
                return await self._cluster.start_replica(replica_id, command.spec, command.plan)
            case commands.UpdateReplica():
                return await self._updated(command)
            case commands.WakeReplica():
                return await self._cluster.wake_replica(replica_id)
            case commands.SleepReplica():
                await self._cluster.sleep_replica(replica_id, command.level)
                return llm_events.ReplicaSlept(replica_id)
            case commands.StopReplica():
                action = f"stopping replica {replica_id}"
                await self._try_stop(self._cluster.stop_replica, replica_id, action)
                return llm_events.ReplicaStopped(replica_id)
            case _:
                assert_never(command)
