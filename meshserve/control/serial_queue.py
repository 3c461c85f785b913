"""Performs commands one after the other, in the order in which they were given: one lane for each worker and each gateway."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from meshserve import tasks

T = TypeVar("T")
Perform = Callable[[T], Awaitable[None]]


class SerialQueue(Generic[T]):
    """A queue with one task that performs what is in it. `perform` must not raise."""

    def __init__(self, name: str, perform: Perform[T]) -> None:
        self._name = name
        self._perform = perform
        self._waiting: collections.deque[T | asyncio.Future[None]] = collections.deque()
        self._asides: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def put(self, command: T, *, is_once: bool = False) -> None:
        """Have the command performed after all before it. `is_once`: not if an equal one still waits."""
        if is_once and command in self._waiting:
            return
        self._waiting.append(command)
        self._wake()

    def aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside the lane what would hold it up; it ends with the lane."""
        task = tasks.spawn(work, f"{self._name} aside")
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def wait_until_settled(self) -> None:
        """Return when everything put so far is performed, or the lane was cleared."""
        if self._task is None:
            return
        mark = asyncio.get_running_loop().create_future()
        self._waiting.append(mark)
        await mark

    def clear(self) -> None:
        """Forget what waits, and let go of what is being performed: there is nobody left to perform it on."""
        while self._waiting:
            self._release(self._waiting.popleft())
        for task in (*self._asides, *([self._task] if self._task else [])):
            task.cancel()
        self._task = None

    def _wake(self) -> None:
        if self._task is None:
            self._task = tasks.spawn(self._run(), self._name)

    async def _run(self) -> None:
        while self._waiting:
            command = self._waiting.popleft()
            if isinstance(command, asyncio.Future):
                self._release(command)
            else:
                await self._perform(command)
        self._task = None

    def _release(self, item: T | asyncio.Future[None]) -> None:
        if isinstance(item, asyncio.Future) and not item.done():
            item.set_result(None)
