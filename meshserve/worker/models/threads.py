"""Threads for work that may hang. They are used again."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

IDLE_MAX = 4


class _Work(NamedTuple):
    run: Callable[[], object]
    end: Future[object]


class Threads(Executor):
    """Daemon threads, one for each piece of work under way, each running `begin` first.

    Work that hangs holds up neither other work nor the end of the process. Idle threads wait for
    more work: that is quicker than new ones, and the allocator's caches of a new thread would be
    booked as the model that it loads. A thread is free for others before the end of its work is
    known, so that work which follows at once finds it.
    """

    def __init__(self, name: str, begin: Callable[[], object]) -> None:
        self._name = name
        self._begin = begin
        self._idle: list[queue.SimpleQueue[_Work | None]] = []
        self._is_closed = False

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin the call at once, in an idle thread or a new one, and return its future."""
        try:
            waiting = self._idle.pop()
        except IndexError:
            waiting = queue.SimpleQueue()
            threading.Thread(
                target=self._serve, args=(waiting,), name=self._name, daemon=True
            ).start()
        end: Future[T] = Future()
        # Begun work can't be cancelled: its future has a result whoever still waits for it.
        end.set_running_or_notify_cancel()
        waiting.put(_Work(functools.partial(call, *args, **kwargs), end))  # type: ignore[arg-type]
        return end

    def close(self) -> None:
        """End idle threads now, and others after their work."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _serve(self, waiting: queue.SimpleQueue[_Work | None]) -> None:
        self._begin()
        while (work := waiting.get()) is not None:
            announce = _performed(work)
            # What the work made must not live until the thread gets more of it.
            del work
            may_stay = not self._is_closed and len(self._idle) < IDLE_MAX
            if may_stay:
                self._idle.append(waiting)
            announce()
            del announce
            if not may_stay:
                return


def _performed(work: _Work) -> Callable[[], None]:
    """Do the work, and return what announces its end."""
    try:
        return functools.partial(work.end.set_result, work.run())
    except BaseException as error:  # noqa: BLE001 whatever it is, it belongs to who waits for it
        return functools.partial(work.end.set_exception, error)
