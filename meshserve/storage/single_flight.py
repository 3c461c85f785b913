"""Runs one coroutine for all callers that want the same result at the same time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from meshserve import tasks

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Work in progress on one event loop, by key."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[T]] = {}

    def begin(self, key: str, make: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Return the work for `key`, which is started now if none is in progress."""
        task = self._under_way.get(key)
        if task is None:
            task = tasks.spawn(make(), f"single flight {key}", is_awaited=True)
            self._under_way[key] = task
            task.add_done_callback(functools.partial(self._finished, key))
        return task

    async def join(self, key: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the work for `key`, which goes on if the caller is cancelled."""
        return await asyncio.shield(self.begin(key, make))

    def _finished(self, key: str, task: asyncio.Task[T]) -> None:
        del self._under_way[key]
        # A failure is the callers' to handle, and all of them may have left.
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        """Cancel all work and wait until it has ended."""
        under_way = tuple(self._under_way.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
