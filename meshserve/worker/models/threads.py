"""Threads that are used again, and may be given up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Task = Callable[[], object]
Work = Callable[[], Task]
"""It gives back what is to be done once its thread is free for others: to say that it is done, so that who hears it needs no new one."""

IDLE_MAX = 4


class Threads:
    """Daemon threads, one for each piece of work under way: one that hangs holds up neither others nor the process's end.

    Those that are done wait for more. That is quicker than a new one each time, and what the allocator keeps for a thread is not
    taken for what its work made. Each does `begin` first.
    """

    def __init__(self, name: str, begin: Task) -> None:
        self._name = name
        self._begin = begin
        self._idle: list[queue.SimpleQueue[Work | None]] = []
        self._is_closed = False

    def run(self, work: Work) -> None:
        """Have it done at once. It must not raise."""
        try:
            waiting = self._idle.pop()
        except IndexError:
            waiting = queue.SimpleQueue()
            threading.Thread(
                target=self._serve, args=(waiting,), name=self._name, daemon=True
            ).start()
        waiting.put(work)

    def close(self) -> None:
        """Let the idle ones end; those that work end when they are done."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _serve(self, waiting: queue.SimpleQueue[Work | None]) -> None:
        self._begin()
        while (work := waiting.get()) is not None:
            tell = work()
            del work
            may_stay = not self._is_closed and len(self._idle) < IDLE_MAX
            if may_stay:
                self._idle.append(waiting)
            tell()
            del tell
            if not may_stay:
                return
