"""The one thread that calls the registry, so that no database holds up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from meshserve import errors
from meshserve.core.interfaces import registry_store

LIMIT_S = 4.0
"""How long a short transaction may take before it is interrupted."""

AWAY_RETRY_S = 2.0
"""When to try again what failed because of the problem: signs of life are given every second."""

T = TypeVar("T")


class RegistryThread:
    """Runs calls of the store one after the other.

    `lost` is set with the reason when a call has found that another controller has the lease.
    `problem` says what is wrong with the database, as long as the last probe has failed: all calls
    but probes fail at once then, since each would wait as long as the one before.
    """

    def __init__(self, store: registry_store.RegistryStore) -> None:
        self.store = store
        self.problem = ""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        # A thread of its own: a database that hangs must not occupy a thread of the loop's pool.
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, "registry")

    async def probe(self, work: Callable[[], T], limit_s: float = LIMIT_S) -> T:
        """Run a call as `call` does, whatever the problem was, and note what it is now."""
        try:
            result = await self._run(work, limit_s)
        except errors.MeshError as error:
            self.problem = error.message
            raise
        self.problem = ""
        return result

    async def call(self, work: Callable[[], T], limit_s: float = LIMIT_S) -> T:
        """Run a call after those before; interrupt the thread if it has not ended by the limit.

        Raises Unavailable while there is a problem, else what the call raises.
        """
        return await self._run(lambda: self._unless_away(work), limit_s)

    def _unless_away(self, work: Callable[[], T]) -> T:
        if self.problem:
            raise errors.Unavailable(self.problem, retry_after_s=AWAY_RETRY_S)
        return work()

    async def _run(self, work: Callable[[], T], limit_s: float) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            done, _ = await asyncio.wait({running}, timeout=limit_s)
            if not done:
                # Calls that wait behind this one need not find it out anew.
                self.problem = f"the registry does not answer within {limit_s:g} s"
                self.store.interrupt()
            return await running
        except registry_store.LeaseLost as lost:
            if not self.lost.done():
                self.lost.set_result(lost.message)
            raise

    async def settled(self) -> None:
        """Return when the calls so far have ended."""
        if self._is_closed:
            return
        await asyncio.get_running_loop().run_in_executor(self._thread, lambda: None)

    async def close(self) -> None:
        """Return when the call in progress has ended; none must follow."""
        self._is_closed = True
        # In a thread, because it blocks until then.
        await asyncio.to_thread(self._thread.shutdown)
