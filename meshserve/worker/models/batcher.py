"""Run one model: on the event loop if that is quicker than a thread, else in batches in threads."""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model, model_stats
from meshserve.logs import run_context
from meshserve.worker.models import (
    isolated_process,
    run_journal,
    run_requests,
    run_watch,
    thread_runs,
)
from meshserve.worker.models import joining as joining_

Tensors = run_requests.Tensors
Outcome = run_requests.Outcome

QUICK_RUN_S = 0.0005
"""Shorter runs stay on the event loop, because a thread would add a tenth of this time."""

SLOW_RUNS = 10
"""Runs whose expected time a run may take longer, once nobody waits for it, until it hangs."""

WAITED = "the request waited for its turn until then"

SMOOTHING = 0.2
"""Weight of the newest run in the expected times (an exponential moving average)."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of one copy's runs.

    `rows_max`: rows in a joined batch. `queue_max`: requests that may wait. `parallel`: runs at the
    same time while requests are not joined; a joined one runs by itself. `is_steady`: equal calls
    take equal times; other code may wait for anything, so it never runs on the event loop.
    `run_s`: how long a run may take until its callers are answered that it took too long.
    """

    rows_max: int
    queue_max: int
    parallel: int
    is_steady: bool = True
    run_s: float = math.inf


class RunHost(NamedTuple):
    """The process that runs a copy's code.

    `key` is the copy's in the journal of this process; it is empty if `process` runs the copy.
    """

    key: str = ""
    process: isolated_process.IsolatedProcess | None = None


IN_WORKER = RunHost()


class RunPlaces(NamedTuple):
    """Where a worker's copies run: threads for longer runs, and what is noted of the runs there.

    `watch` ends or counts those that never end, `now_s` is the event loop's clock, for threads too.
    """

    pool: ThreadPoolExecutor
    journal: run_journal.RunJournal
    watch: run_watch.RunWatch
    now_s: Callable[[], float] = time.monotonic


shared_limits = functools.lru_cache(maxsize=1024)(BatchLimits)
"""Equal limits are one object: tens of thousands of copies have the same."""


class Batcher:
    """The runs of one copy, for one event loop.

    `host` is the process that its runs may end.
    """

    __slots__ = (
        "_call_s",
        "_key",
        "_limits",
        "_loaded",
        "_places",
        "_process",
        "_row_s",
        "_runs",
        "_saturated_at_s",
        "_waiting",
        "joining",
    )

    def __init__(
        self,
        loaded: model_runtime.LoadedModel,
        limits: BatchLimits,
        places: RunPlaces,
        run_s: float | None,
        joining: joining_.Joining,
        host: RunHost = IN_WORKER,
    ) -> None:
        """`run_s` is the measured time of one row's run, or None if it is unknown."""
        self.joining = joining
        self._loaded = loaded
        self._limits = limits
        self._places = places
        self._key, self._process = host
        # An unknown time counts as long, so the first run goes to a thread, where it is measured.
        self._row_s = QUICK_RUN_S if run_s is None else run_s
        self._call_s = self._row_s
        # A list: an empty deque takes ten times the memory, and there are tens of thousands. The
        # list is short, so taking from its front is quick.
        self._waiting: list[thread_runs.Job] = []
        # A tuple, because all empty tuples are one object.
        self._runs: tuple[thread_runs.Run, ...] = ()
        self._saturated_at_s: float | None = None

    def run(
        self, request: run_requests.RunRequest, stats: model_stats.ModelStats
    ) -> Tensors | asyncio.Future[Tensors]:
        """Run the model; return the outputs for this request's rows, or a future of them.

        Raises ModelRaised if the model's code raises, Overloaded if too many requests wait. The
        future may raise ModelRaised too, or DeadlineExceeded if the deadline passes in the queue.
        """
        if self._is_quick(request.rows):
            places = self._places
            journal, now_s = places.journal, places.now_s
            began_s = now_s()
            # Takes 0.12 µs of 40: without it nobody knows what ran if it ends the process.
            journal.begin(self._key)
            try:
                outputs = self._predict(request)
            finally:
                journal.end()
            self._learn(request.rows, now_s() - began_s, stats)
            return outputs
        if len(self._waiting) >= self._limits.queue_max:
            raise errors.Overloaded(
                f"{len(self._waiting)} requests wait for this model",
                retry_after_s=max(1.0, self._call_s),
            )
        loop = asyncio.get_running_loop()
        job = thread_runs.Job(request, loop.time(), loop.create_future())
        self._waiting.append(job)
        self._start(stats)
        if len(self._waiting) > 1 and run_requests.can_join(self._waiting[-2].request, request):
            self.joining.note_demand()
        self._note_saturation(job.arrived_s, stats)
        return job.answer

    def queue(self, now_s: float) -> tuple[int, float]:
        """Return how many requests wait, and for how long the first has."""
        return len(self._waiting), now_s - self._waiting[0].arrived_s if self._waiting else 0.0

    def abandon(self, answer: asyncio.Future[Any]) -> None:
        """Forget a request whose caller has left; a run that has begun goes on."""
        answer.cancel()
        self._waiting = [job for job in self._waiting if job.answer is not answer]

    def find_end(self, answer: asyncio.Future[Any]) -> asyncio.Future[Any] | None:
        """Return the future of the run that goes on for this answer, None if there is none."""
        return next((run.end for run in self._runs if run.has(answer)), None)

    def sweep(self, now_s: float) -> bool:
        """Answer the requests whose time is over; return whether a run in a thread now hangs.

        `now_s` is the time on the event loop's clock. A run hangs that goes on long after its last
        caller has left or was answered; in a process of its own it is ended instead.
        """
        for job in self._waiting:
            if job.expires_s <= now_s:
                thread_runs.settle(job, thread_runs.late(WAITED))
        self._waiting = [job for job in self._waiting if not job.answer.done()]
        has_hung = False
        for run in self._runs:
            self._answer_late(run, now_s)
            if run.is_awaited or run.began_s is None or run.is_hung:
                continue
            run.left_s = now_s if run.left_s is None else run.left_s
            run.is_hung = now_s - run.left_s >= self._patience_s
            if run.is_hung:
                has_hung |= self._end_hung(run)
        return has_hung

    def _answer_late(self, run: thread_runs.Run, now_s: float) -> None:
        """Answer the run's callers whose deadline, or whose model's time limit, has passed."""
        for job in run.batch:
            if job.request.expires_s <= now_s:
                thread_runs.settle(job, thread_runs.late("it passed while the model ran"))
        limit_s = self._limits.run_s
        if run.began_s is not None and now_s - run.began_s >= limit_s:
            late = f"the model has not answered within {limit_s:g} s (predict_timeout_s)"
            for job in run.batch:
                thread_runs.settle(job, thread_runs.late(late))
            if self._process is not None:
                self._process.stop(f"a run took longer than {limit_s:g} s (predict_timeout_s)")

    @property
    def _patience_s(self) -> float:
        """How long a run may go on after its last caller has left.

        A model that is slow at all times is given more of it: its run will end.
        """
        return run_watch.ABANDONED_S + SLOW_RUNS * self._call_s

    def _end_hung(self, run: thread_runs.Run) -> bool:
        """End the process of a run that hangs, if it has one; return whether it has none."""
        if self._process is not None:
            self._process.stop(f"nobody waited for its run any more, for {self._patience_s:.3g} s")
            return False
        self._places.watch.count_hung(self._key, run.end)
        # Other runs of the copy may hang as well, and then nothing would end this wait.
        for job in self._waiting:
            thread_runs.settle(
                job, isolated_process.NotRun("another run of the model does not end")
            )
        self._waiting = []
        return True

    @property
    def key(self) -> str:
        """The copy's key in the journal of this process, empty if another process runs it."""
        return self._key

    def waiting(self) -> list[model.ModelId]:
        """Return the model of each request that waits for its turn."""
        return [job.request.model_id for job in self._waiting if job.request.model_id]

    @property
    def _parallel(self) -> int:
        return 1 if self.joining.is_on else self._limits.parallel

    @property
    def _rows_max(self) -> int:
        return self._limits.rows_max if self.joining.is_on else 1

    def _is_quick(self, rows: int) -> bool:
        """Return whether the run is expected to end before a thread would have begun it."""
        # A quick run must not overtake waiting requests, nor run beside another if not reentrant.
        if self._runs or self._waiting or not self._limits.is_steady:
            return False
        return self._call_s < QUICK_RUN_S and self._row_s * rows < QUICK_RUN_S

    def _start(self, stats: model_stats.ModelStats) -> None:
        """Start batches in threads, as long as requests wait and fewer than `parallel` run."""
        while self._waiting and len(self._runs) < self._parallel:
            batch = self._next_batch(stats)
            if not batch:
                return
            run = thread_runs.Run(batch)
            run.end = asyncio.get_running_loop().run_in_executor(
                self._places.pool, self._perform, run
            )
            self._runs += (run,)
            self._places.watch.add(self)
            run.end.add_done_callback(functools.partial(self._finish, run, stats))

    def _next_batch(self, stats: model_stats.ModelStats) -> list[thread_runs.Job]:
        """Take the next jobs that may run together, in order; refuse those past their deadlines.

        A batch takes all waiting jobs at once. Even if a run of n rows is not quicker than n runs,
        callers wait equally long on average (Little's law), so smaller batches gain nothing.
        """
        batch: list[thread_runs.Job] = []
        rows, rows_max = 0, self._rows_max
        now_s = asyncio.get_running_loop().time()
        while self._waiting:
            job = self._waiting[0]
            if job.answer.done() or job.expires_s <= now_s:
                self._waiting.pop(0)
                thread_runs.settle(job, thread_runs.late(WAITED))
                continue
            is_full = rows + job.request.rows > rows_max
            if batch and (is_full or not run_requests.can_join(batch[0].request, job.request)):
                break
            self._waiting.pop(0)
            stats.queued.record(now_s - job.arrived_s)
            batch.append(job)
            rows += job.request.rows
        return batch

    def _perform(self, run: thread_runs.Run) -> thread_runs.Finished:
        """Run the jobs whose callers still wait, in a thread that may have been late to start."""
        began_s = run.began_s = self._places.now_s()
        wanted = [job for job in run.batch if not job.answer.done()]
        with self._places.journal.running(self._key):
            outcomes = self._outcomes(wanted) if wanted else []
        return thread_runs.Finished(wanted, outcomes, self._places.now_s() - began_s)

    def _outcomes(self, batch: Sequence[thread_runs.Job]) -> Sequence[Outcome]:
        """Run the jobs joined; if that fails, one by one, so that each gets its own error."""
        if len(batch) == 1:
            return [self._outcome(batch[0])]
        try:
            requests = [job.request for job in batch]
            joined = list(run_requests.split(self._predict(run_requests.join(requests)), requests))
        except run_requests.RowsLost as lost:
            self.joining.stop(lost.message)
        except (errors.MeshError, MemoryError):
            # Joining copies the inputs, for which memory may be short; alone they need no copy.
            pass
        else:
            return self._watched(batch, joined)
        return [self._outcome(job) for job in batch]

    def _watched(
        self, batch: Sequence[thread_runs.Job], joined: list[Tensors]
    ) -> Sequence[Outcome]:
        """Return the joined outcomes; or those of the jobs alone, if some are run alone and differ.

        A difference means that rows influence each other, so requests are no longer joined.
        """
        count = self.joining.count_run()
        checked = batch[:count] if count >= 0 else batch
        alone = [self._outcome(job) for job in checked]
        pairs = zip(alone, joined, strict=False)
        differences = itertools.starmap(run_requests.find_difference, pairs)
        difference = next(filter(None, differences), None)
        if difference is None:
            self.joining.rows += sum(job.request.rows for job in batch)
            return joined
        self.joining.stop(f"a joined run gave another answer than a request alone: {difference}")
        return alone + [self._outcome(job) for job in batch[len(alone) :]]

    def _outcome(self, job: thread_runs.Job) -> Outcome:
        try:
            return self._predict(job.request)
        except errors.MeshError as error:
            return error

    def _predict(self, request: run_requests.RunRequest) -> Tensors:
        # Takes 0.1 µs: without it nobody knows for whom the model prints and logs.
        token = run_context.begin(request)
        try:
            if request.details is None:
                return self._loaded.predict(request.inputs, request.outputs)
            return self._loaded.predict_request(request.inputs, request.outputs, request.details)
        except errors.MeshError:
            raise
        except BaseException as error:
            # A model's code may raise anything, and its caller must get the error: a
            # KeyboardInterrupt would end the worker, a CancelledError leave the request waiting.
            raise errors.ModelRaised(errors.words_of(error)) from error
        finally:
            run_context.end(token)

    def _finish(
        self,
        run: thread_runs.Run,
        stats: model_stats.ModelStats,
        end: asyncio.Future[thread_runs.Finished],
    ) -> None:
        self._runs = tuple(other for other in self._runs if other is not run)
        if not self._runs:
            self._places.watch.discard(self)
        jobs, outcomes, took_s = end.result()
        stats.joined_rows += self.joining.take_rows()
        if jobs:
            self._learn(sum(job.request.rows for job in jobs), took_s, stats)
        for job, outcome in zip(jobs, outcomes, strict=True):
            thread_runs.settle(job, outcome)
        self._start(stats)
        self._note_saturation(asyncio.get_running_loop().time(), stats)

    def _note_saturation(self, now_s: float, stats: model_stats.ModelStats) -> None:
        """Count the time in which more requests wait than the next run can take."""
        if self._saturated_at_s is not None:
            stats.saturated_s += now_s - self._saturated_at_s
        self._saturated_at_s = now_s if len(self._waiting) >= self._rows_max else None

    def _learn(self, rows: int, took_s: float, stats: model_stats.ModelStats) -> None:
        self._call_s = _smooth(self._call_s, took_s)
        self._row_s = _smooth(self._row_s, took_s / max(1, rows))
        stats.record_run(rows, took_s)


def _smooth(expected_s: float, took_s: float) -> float:
    """Return the new expected time.

    A run that took far longer than expected was probably slowed down by the machine, so it counts
    as twice the expected time at most.
    """
    return expected_s + SMOOTHING * (min(took_s, 2 * expected_s) - expected_s)
