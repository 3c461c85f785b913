"""One piece of work for however many want it at the same time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from meshserve import tasks

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Work under way on one event loop, by key."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[T]] = {}

    def begin(self, key: str, make: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The work for `key`, begun now if none is under way."""
        task = self._under_way.get(key)
        if task is None:
            task = tasks.spawn(make(), f"single flight {key}", is_awaited=True)
            self._under_way[key] = task
            task.add_done_callback(functools.partial(self._landed, key))
        return task

    async def join(self, key: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the work for `key`. It goes on when those who wait for it leave."""
        return await asyncio.shield(self.begin(key, make))

    def _landed(self, key: str, task: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        """End all work and wait until it has ended."""
        under_way = tuple(self._under_way.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
