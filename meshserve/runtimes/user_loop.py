"""An event loop for one model's coroutines, in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

CLOSE_S = 5.0
"""How long coroutines that were cancelled may take to end."""

logger = logging.getLogger(__name__)

is_awaitable = inspect.isawaitable


class UserLoop:
    """One event loop from a model's load to its end: sessions and locks are bound to theirs.

    The thread begins with the first call. Any thread may call; calls interleave where they wait.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[..., T], *args: object) -> Any:
        """Call the function on the loop, and await what it returns. Raises what it raises."""

        async def answer() -> Any:
            result = function(*args)
            return await result if is_awaitable(result) else result

        return self.wait(answer())

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Return the result. Raises what the coroutine raises."""
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(
            _guarded(awaitable), self._started()
        )
        return future.result()

    def _started(self) -> asyncio.AbstractEventLoop:
        # Two first calls at once would start two loops.
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon: a coroutine that never ends must not keep the process from ending.
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop,), name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        is_ended = False
        while not is_ended:
            try:
                loop.run_forever()
                is_ended = True
            except BaseException:
                # A task of the model's own may raise SystemExit, which ends a loop's run.
                logger.exception("a task of the model %s ended its event loop's run", self._name)
        loop.run_until_complete(_end_all(loop))
        loop.close()

    def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            # `stop` alone would not wake a loop that waits.
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(CLOSE_S)


async def _guarded(awaitable: Awaitable[T]) -> T:
    """Await; what asyncio lets end the whole loop becomes a RuntimeError."""
    try:
        return await awaitable
    except (SystemExit, KeyboardInterrupt) as error:
        kind = type(error).__name__
        raise RuntimeError(f"the code asked to end its process: {kind}: {error}") from error


async def _end_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in tasks:
        task.cancel()
    if tasks:
        # A coroutine may catch its cancellation and go on.
        await asyncio.wait(tasks, timeout=CLOSE_S)
    with contextlib.suppress(Exception):
        await loop.shutdown_asyncgens()
