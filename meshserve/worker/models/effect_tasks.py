"""The tasks that fetch, load, move and free the copies of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from meshserve import errors, tasks
from meshserve.core.memory import residency_events as ev

MakeEvent = Callable[[errors.MeshError], ev.Event]


class EffectTasks:
    """Runs effects, and emits for each that a mistake of ours has ended what its waiters are told.

    Without that they would wait for the copy until their deadlines.
    """

    def __init__(self, emit: Callable[[ev.Event], None]) -> None:
        self._emit = emit
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], failed: MakeEvent | None = None) -> None:
        """Start `work`. If it raises, `failed` makes the event of its failure, if it has one."""
        task = tasks.spawn(self._tell(work, failed) if failed else work, "copy effect")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _tell(self, work: Coroutine[Any, Any, None], failed: MakeEvent) -> None:
        try:
            await work
        except Exception as mistake:
            self._emit(failed(errors.LoadFailed(f"the worker made a mistake: {mistake!r}")))
            raise

    async def cancel(self) -> None:
        """Cancel all that run, and return once they have ended."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
