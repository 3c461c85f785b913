"""Threads for work that may hang. They are used again."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Task = Callable[[], object]
Work = Callable[[], Task]
"""Returns a task that its thread runs once it is free for others.

That task announces the end of the work, so that work which follows at once finds a free thread.
"""

IDLE_MAX = 4


class Threads:
    """Daemon threads, one for each piece of work under way, each running `begin` first.

    Work that hangs holds up neither other work nor the end of the process. Idle threads wait for
    more work: that is quicker than new ones, and the allocator's caches of a new thread would be
    booked as the model that it loads.
    """

    def __init__(self, name: str, begin: Task) -> None:
        self._name = name
        self._begin = begin
        self._idle: list[queue.SimpleQueue[Work | None]] = []
        self._is_closed = False

    def run(self, work: Work) -> None:
        """Begin the work at once, in an idle thread or a new one. It must not raise."""
        try:
            waiting = self._idle.pop()
        except IndexError:
            waiting = queue.SimpleQueue()
            threading.Thread(
                target=self._serve, args=(waiting,), name=self._name, daemon=True
            ).start()
        waiting.put(work)

    def close(self) -> None:
        """End idle threads now, and others after their work."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _serve(self, waiting: queue.SimpleQueue[Work | None]) -> None:
        self._begin()
        while (work := waiting.get()) is not None:
            announce = work()
            # What the work made must not live until the thread gets more of it.
            del work
            may_stay = not self._is_closed and len(self._idle) < IDLE_MAX
            if may_stay:
                self._idle.append(waiting)
            announce()
            del announce
            if not may_stay:
                return
