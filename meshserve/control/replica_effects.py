"""Performs commands for replicas of LLMs. What comes of each is the next event; however long one takes, it holds up nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from meshserve import errors, tasks
from meshserve.core.interfaces import cluster_control as ports
from meshserve.core.values import commands, events

STOP_TIMEOUT_S = 120.0

logger = logging.getLogger(__name__)


class ReplicaEffects:
    """Commands for one replica are performed one after the other; to stop it is to give up what is being done with it."""

    def __init__(
        self, replicas: ports.ReplicaControl, post: Callable[[events.Event], None]
    ) -> None:
        self._replicas = replicas
        self._post = post
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}

    def perform(self, command: commands.ReplicaCommand) -> None:
        """Have it performed after those given before for the same replica."""
        before = [task for task in self._tasks.get(command.replica_id, ()) if not task.done()]
        if isinstance(command, commands.StopReplica):
            for task in before:
                task.cancel()
        work = self._perform_after(before, command)
        task = tasks.spawn(work, f"{type(command).__name__} {command.replica_id}")
        self._tasks[command.replica_id] = [*before, task]
        task.add_done_callback(lambda _: self._forget(command.replica_id))

    def close(self) -> None:
        """Let go of everything; what is half started is ended by whoever begins next."""
        for running in self._tasks.values():
            for task in running:
                task.cancel()

    def _forget(self, replica_id: str) -> None:
        if all(task.done() for task in self._tasks.get(replica_id, ())):
            self._tasks.pop(replica_id, None)

    async def _perform_after(
        self, before: list[asyncio.Task[None]], command: commands.ReplicaCommand
    ) -> None:
        if before:
            await asyncio.wait(before)
        try:
            self._post(await self._done(command))
        except errors.MeshError as error:
            logger.warning("%s %s: %s", type(command).__name__, command.replica_id, error.message)
            self._post(events.ReplicaLost(command.replica_id, error.message))

    async def _done(self, command: commands.ReplicaCommand) -> events.LlmEvent:
        match command:
            case commands.StartReplica():
                return await self._replicas.start_replica(
                    command.replica_id, command.spec, command.plan
                )
            case commands.WakeReplica():
                return await self._replicas.wake_replica(command.replica_id)
            case commands.SleepReplica():
                await self._replicas.sleep_replica(command.replica_id, command.level)
                return events.ReplicaSlept(command.replica_id)
            case commands.StopReplica():
                await self._stop(command.replica_id)
                return events.ReplicaStopped(command.replica_id)

    async def _stop(self, replica_id: str) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._replicas.stop_replica(replica_id)
        except (errors.MeshError, TimeoutError) as error:
            logger.warning("stopping replica %s: %s", replica_id, error)
