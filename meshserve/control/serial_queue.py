"""Perform commands one after the other, in the order in which they were put."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from meshserve import tasks

T = TypeVar("T")
Perform = Callable[[T], Coroutine[Any, Any, None]]


class SerialQueue(Generic[T]):
    """A queue of commands for one worker, gateway, replica or registry."""

    def __init__(self, name: str, perform: Perform[T]) -> None:
        self._name = name
        self._perform = perform
        # A future among the commands is set when all before it are performed.
        self._waiting: collections.deque[T | asyncio.Future[None]] = collections.deque()
        self._background: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._current: asyncio.Task[None] | None = None

    def put(self, command: T, *, is_once: bool = False) -> None:
        """Perform the command after earlier ones; with `is_once`, skip it if an equal one waits."""
        # One that is being performed does not count: it may have begun by an older state.
        if is_once and command in self._waiting:
            return
        self._waiting.append(command)
        if self._runner is None:
            self._runner = tasks.spawn(self._run(), self._name)

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run long work beside the queue, so that later commands need not wait for it."""
        task = tasks.spawn(work, f"{self._name} background")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def wait_until_settled(self) -> None:
        """Return when every command so far is performed, or dropped."""
        if self._runner is None:
            return
        settled = asyncio.get_running_loop().create_future()
        self._waiting.append(settled)
        await settled

    def interrupt(self) -> None:
        """Drop the commands that wait, and cancel the current one.

        The next command begins only once the cancelled one has ended, because it may have to undo
        half of that one's work.
        """
        while self._waiting:
            self._release(self._waiting.popleft())
        if self._current is not None:
            self._current.cancel()

    def clear(self) -> None:
        """Drop and cancel all commands and background work, once their process has ended."""
        self.interrupt()
        for task in (*self._background, *([self._runner] if self._runner else [])):
            task.cancel()
        self._runner = None

    async def _run(self) -> None:
        while self._waiting:
            command = self._waiting.popleft()
            if isinstance(command, asyncio.Future):
                self._release(command)
                continue
            # Each command is a task: a bug in it is logged and does not end the queue.
            work = self._perform(command)
            current = self._current = tasks.spawn(work, f"{self._name}: {type(command).__name__}")
            # `wait` does not raise the task's exception, nor cancel the task with the queue.
            await asyncio.wait((current,))
            if self._current is current:
                self._current = None
        self._runner = None

    def _release(self, item: T | asyncio.Future[None]) -> None:
        if isinstance(item, asyncio.Future) and not item.done():
            item.set_result(None)
