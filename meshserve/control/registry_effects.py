"""Perform the mesh's commands on the registry, in a thread beside the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import assert_never

from meshserve import errors
from meshserve.control import serial_queue
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import commands, events

logger = logging.getLogger(__name__)


class RegistryEffects:
    """One thread that writes the registry; the outcome of each save is posted as an event."""

    def __init__(
        self, store: cluster_control.RegistryStore, post: Callable[[events.Event], None]
    ) -> None:
        self._store = store
        self._post = post
        self._queue = serial_queue.SerialQueue("registry", self._on_registry)
        # A thread of its own: a database that hangs must not occupy a thread of the loop's pool.
        self._thread = ThreadPoolExecutor(1, "registry")

    def perform(self, command: commands.RegistryCommand) -> None:
        """Perform the command after those given before."""
        self._queue.put(command)

    async def close(self) -> None:
        """Drop all waiting commands, and return when the write in progress has ended."""
        self._queue.clear()
        await asyncio.to_thread(self._thread.shutdown)

    async def _on_registry(self, command: commands.RegistryCommand) -> None:
        match command:
            case commands.SaveChanges():
                await self._save(command)
            case commands.RememberMeasured():
                await self._remember(command)
            case _:
                assert_never(command)

    async def _save(self, command: commands.SaveChanges) -> None:
        try:
            await self._in_thread(lambda: self._store.save(command.changes))
        except errors.MeshError as error:
            logger.warning("changes could not be saved: %s", error.message)
            self._post(events.SaveFailed(error))
        except Exception as error:
            # A save without an answer would block all later admin requests.
            logger.exception("changes could not be saved")
            self._post(events.SaveFailed(errors.MeshError(f"the registry failed: {error!r}")))
        else:
            self._post(events.ChangesSaved(command.changes))

    async def _remember(self, command: commands.RememberMeasured) -> None:
        try:
            await self._in_thread(lambda: self._store.remember(command.learned))
        except errors.MeshError as error:
            # The next load of the model measures it again.
            logger.warning("what was measured is not kept: %s", error.message)

    async def _in_thread(self, call: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, call)
