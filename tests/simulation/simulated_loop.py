"""An event loop whose clock is simulated, and the processes that share it.

Nothing waits: when no callback is due, the clock jumps to the next timer. Threads are greenlets,
which run until they would block, so that a seed gives one order of all that happens.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import greenlet

from meshserve import tasks

T = TypeVar("T")

FOREVER_S = 1e9
THREADS_MAX = 1000
"""Threads of an executor that tells no number of its own."""


class SimulatedProcess:
    """A process: all callbacks, tasks and threads that were begun by it.

    None of them runs any more once it has ended, and none runs while it is stopped. `on_end` is
    called when it ends; `cpu_s` is the time that its event loop has spent in models.
    """

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.is_alive = True
        self.is_stopped = False
        self.cpu_s = 0.0
        self.callbacks = 0
        self.on_end: list[Callable[[str], None]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.threads_begun = 0
        self.threads_ended = 0
        self._held: list[asyncio.Handle] = []

    def context(self) -> contextvars.Context:
        """Return a context in which everything that is begun belongs to the process."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        return context

    def end(self, reason: str) -> None:
        """End the process as a signal does: at once, with whatever it was doing."""
        if self.is_alive:
            self.is_alive = False
            self._held.clear()
            for tell in self.on_end:
                tell(reason)

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep what is due until a stopped process goes on."""
        self._held.append(handle)

    def stop(self) -> None:
        """Stop the process as SIGSTOP does."""
        self.is_stopped = True

    def go_on(self) -> list[asyncio.Handle]:
        """Return what became due while the process was stopped."""
        self.is_stopped = False
        held, self._held = self._held, []
        return held

    @property
    def running_tasks(self) -> list[asyncio.Task[Any]]:
        """Return its tasks that have not ended."""
        return [task for task in self.tasks if not task.done()]


PROCESS: contextvars.ContextVar[SimulatedProcess | None] = contextvars.ContextVar(
    "process", default=None
)


class _Handle(asyncio.Handle):
    def _run(self) -> None:
        run_in(self, super()._run)


class _TimerHandle(asyncio.TimerHandle):
    def _run(self) -> None:
        run_in(self, super()._run)


def run_in(handle: Any, run: Callable[[], None]) -> None:
    """Run a callback if the process that it belongs to can run."""
    process = handle._context.get(PROCESS)
    if process is None:
        run()
    elif process.is_stopped:
        process.hold(handle)
    elif process.is_alive:
        process.callbacks += 1
        run()


class Stuck(AssertionError):
    """Nothing is due any more, and the simulation has not ended."""


class _Executor:
    """The threads of one executor: how many run, and the work that waits for one."""

    def __init__(self, executor: Executor | None) -> None:
        is_pool = isinstance(executor, ThreadPoolExecutor)
        self.threads_max = executor._max_workers if is_pool else THREADS_MAX  # type: ignore[union-attr]
        self.running = 0
        self.waiting: collections.deque[Callable[[], None]] = collections.deque()


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop in simulated time. `chance` decides how late threads begin.

    `look` is called whenever nothing is due before the clock moves.
    """

    def __init__(self, chance: random.Random, look: Callable[[], None]) -> None:
        super().__init__()
        self.chance = chance
        self.callbacks = 0
        self.failures: list[str] = []
        self._now_s = 0.0
        self._look = look
        self._executors: dict[int, tuple[Executor | None, _Executor]] = {}
        self._main = greenlet.getcurrent()
        # What has not ended is kept: its cleaning up would run outside of any simulation.
        self._kept: list[object] = []
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(self._note_failure)

    def _note_failure(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    # The clock

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        ready: collections.deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        if not ready:
            self._advance(ready)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                self.callbacks += 1
                handle._run()

    def _advance(self, ready: collections.deque[asyncio.Handle]) -> None:
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        self._look()
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not scheduled:
            raise Stuck("nothing is due any more")
        self._now_s = max(self._now_s, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now_s:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        handle: Any = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, handle)  # type: ignore[attr-defined]
        handle._scheduled = True
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        handle: Any = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    # Processes

    def _make_task(
        self, _: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        task = asyncio.Task(work, loop=self, **options)
        process = PROCESS.get()
        (process.tasks if process else self._kept).append(task)
        return task

    def begin(self, process: SimulatedProcess, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work in a process."""
        context = process.context()
        return context.run(tasks.spawn, work, f"work of {process.name}", is_awaited=True)

    def go_on(self, process: SimulatedProcess) -> None:
        """Let a stopped process go on."""
        self._ready.extend(process.go_on())  # type: ignore[attr-defined]

    # Threads

    def begin_thread(self, process: SimulatedProcess, run: Callable[[], None]) -> None:
        """Begin a thread of a process."""
        process.context().run(self._start_thread, run)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        _, threads = self._executors.setdefault(id(executor), (executor, _Executor(executor)))
        end: asyncio.Future[Any] = self.create_future()
        process = PROCESS.get()

        def run() -> None:
            outcome: Future[Any] = Future()
            try:
                outcome.set_result(func(*args))
            except BaseException as error:  # noqa: BLE001 it belongs to who waits for it
                outcome.set_exception(error)
            threads.running -= 1
            if process is not None:
                process.threads_ended += 1
            self._copy(outcome, end)
            if threads.waiting:
                self._begin_thread(threads, threads.waiting.popleft())

        if process is not None:
            process.threads_begun += 1
        if threads.running < threads.threads_max:
            self._begin_thread(threads, run)
        else:
            threads.waiting.append(run)
        return end

    def _begin_thread(self, threads: _Executor, run: Callable[[], None]) -> None:
        threads.running += 1
        self._start_thread(run)

    def _start_thread(self, run: Callable[[], None]) -> None:
        thread = greenlet.greenlet(run, parent=self._main)
        thread.gr_context = contextvars.copy_context()
        self._kept.append(thread)
        late_s = self.chance.choice((0.0, 0.0, 0.0, 0.0001, 0.003))
        self.call_later(late_s, thread.switch)

    @staticmethod
    def _copy(outcome: Future[Any], end: asyncio.Future[Any]) -> None:
        if end.done():
            return
        error = outcome.exception()
        if error is None:
            end.set_result(outcome.result())
        else:
            end.set_exception(error)


class Gate:
    """What a thread waits for, and another thread or a callback opens."""

    def __init__(self) -> None:
        self.is_open = False
        self._wake: Callable[[], None] | None = None

    def open(self) -> None:
        """Let the thread that waits go on."""
        if not self.is_open:
            self.is_open = True
            if self._wake is not None:
                self._wake()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return once it is open, or after the timeout; return whether it is open."""
        loop, thread = current(), greenlet.getcurrent()
        assert thread is not loop._main, "the event loop would be blocked"
        # In the context of who waits: whoever opens it may be another process.
        context = contextvars.copy_context()
        if not self.is_open:
            timer = loop.call_later(FOREVER_S if timeout_s is None else timeout_s, thread.switch)
            self._wake = lambda: loop.call_soon(thread.switch, context=context)
            loop._main.switch()
            self._wake = None
            timer.cancel()
        return self.is_open


def current() -> SimulatedLoop:
    """Return the loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return loop


def this_process() -> SimulatedProcess:
    """Return the process that runs."""
    process = PROCESS.get()
    assert process is not None, "this belongs to no process"
    return process


def work(seconds: float) -> None:
    """Let a thread take so long; on the event loop, count the time as the process's own."""
    thread = greenlet.getcurrent()
    loop = current()
    if thread is loop._main:
        this_process().cpu_s += seconds
        return
    loop.call_later(seconds, thread.switch)
    loop._main.switch()


def end_this_process(reason: str) -> NoReturn:
    """End the process of the thread that calls, by its own fault."""
    assert greenlet.getcurrent() is not current()._main, "only threads end their processes"
    this_process().end(reason)
    current()._main.switch()
    raise AssertionError("a thread of a dead process ran")
