"""Performs the commands that write the registry; the outcome of each save is posted as an event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import assert_never

from meshserve import errors, tasks
from meshserve.control import registry_thread, serial_queue
from meshserve.core.interfaces import cluster_control, registry_store
from meshserve.core.values import commands, containment, events

CHANGE_S = 0.005
"""How much longer a save may take for each of its changes: a configuration may have thousands."""

GRACE_S = 8.0
"""How long a caller waits after the limit: for a new connection, and its own limit."""

AGAIN_S = 1.0

logger = logging.getLogger(__name__)


class RegistryEffects:
    """Saves in order; no event is posted before the fate of the save is known, but SaveStalled."""

    def __init__(
        self,
        thread: registry_thread.RegistryThread,
        clock: cluster_control.Clock,
        post: Callable[[events.Event], None],
    ) -> None:
        self._thread = thread
        self._clock = clock
        self._post = post
        self._queue = serial_queue.SerialQueue("registry", self._on_registry)

    def perform(self, command: commands.RegistryCommand) -> None:
        """Perform the command after those given before."""
        self._queue.put(command)

    async def close(self) -> None:
        """Drop all waiting commands, and return when the write in progress has ended."""
        self._queue.clear()
        await self._thread.settled()

    async def _on_registry(self, command: commands.RegistryCommand) -> None:
        match command:
            case commands.SaveChanges():
                await self._save(command)
            case commands.RememberMeasured():
                await self._remember(command)
            case _:
                assert_never(command)

    async def _save(self, command: commands.SaveChanges) -> None:
        limit_s = registry_thread.LIMIT_S + CHANGE_S * len(command.changes)
        save = self._thread.call(lambda: self._thread.store.save(command.changes), limit_s)
        saving = tasks.spawn(save, "save", is_awaited=True)
        try:
            done, _ = await asyncio.wait({saving}, timeout=limit_s + GRACE_S)
            if not done:
                self._stall("it does not answer")
            await saving
        except registry_store.OutcomeUnknown as error:
            self._stall(error.message)
            await self._settle(command, error)
        except errors.MeshError as error:
            self._failed(error)
        except Exception as error:
            # A save without an answer would block all later admin requests.
            logger.exception("changes could not be saved")
            self._post(events.SaveFailed(errors.MeshError(f"the registry failed: {error!r}")))
        else:
            self._saved(command)

    def _stall(self, reason: str) -> None:
        logger.warning("the registry has not said whether changes are saved: %s", reason)
        self._post(events.SaveStalled(reason))

    async def _settle(self, command: commands.SaveChanges, unknown: errors.MeshError) -> None:
        """Ask until the database tells whether the changes of the last save are there."""
        while True:
            try:
                is_saved = await self._thread.probe(self._thread.store.settle)
            except registry_store.LeaseLost as error:
                return self._failed(error)
            except errors.MeshError:
                await self._clock.sleep(AGAIN_S)
            else:
                return self._saved(command) if is_saved else self._failed(unknown)

    def _failed(self, error: errors.MeshError) -> None:
        logger.warning("changes could not be saved: %s", error.message)
        self._post(events.SaveFailed(error))

    def _saved(self, command: commands.SaveChanges) -> None:
        # Only now, because a quarantine that could not be saved does not hold.
        for change in command.changes:
            if isinstance(change, containment.CopyQuarantined):
                names = ", ".join(map(str, change.ids))
                logger.error("%s, copy %s: %s", names, change.key, change.reason)
        self._post(events.ChangesSaved(command.changes))

    async def _remember(self, command: commands.RememberMeasured) -> None:
        try:
            await self._thread.call(lambda: self._thread.store.remember(command.learned))
        except errors.MeshError as error:
            # The next load of the model measures it again.
            logger.warning("what was measured is not kept: %s", error.message)
