"""Run one model: on the event loop if that is quicker than a thread, else in batches in threads."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model_stats
from meshserve.runtimes import row_proof
from meshserve.worker.models import joining as joining_
from meshserve.worker.models import run_journal

Tensors = Mapping[str, np.ndarray]
Outcome = Tensors | errors.MeshError

QUICK_RUN_S = 0.0005
"""Shorter runs stay on the event loop, because a thread would add a tenth of this time."""

SMOOTHING = 0.2
"""Weight of the newest run in the expected times (an exponential moving average)."""


@dataclass(slots=True)
class RunRequest:
    """A run of the model.

    `inputs` were checked against the signature; `rows` is the size of their first dimension if the
    model has a batch dimension, else 1. It is 0 for inputs whose first sizes are unequal or zero:
    such inputs can't be joined, and the model may refuse them. Empty `outputs` mean all.
    `expires_s` is the deadline on the event loop's clock. `details` are set for a model that sees
    them; its requests are run alone.
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int
    expires_s: float
    details: model_runtime.RequestDetails | None = None


@dataclass(slots=True)
class _Job:
    request: RunRequest
    arrived_s: float
    answer: asyncio.Future[Tensors]


class _Finished(NamedTuple):
    """The result of a run: its jobs, their outcomes in the same order, and the seconds it took."""

    jobs: Sequence[_Job]
    outcomes: Sequence[Outcome]
    took_s: float


class _Run(NamedTuple):
    """Jobs that a thread runs, and the future of their result."""

    batch: Sequence[_Job]
    end: asyncio.Future[_Finished]

    def has(self, answer: asyncio.Future[Tensors]) -> bool:
        """Return whether one of the jobs is answered by this future."""
        return any(job.answer is answer for job in self.batch)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of one copy's runs.

    `rows_max`: rows in a joined batch. `queue_max`: requests that may wait. `parallel`: runs at the
    same time while requests are not joined; a joined one runs by itself. `is_steady`: equal calls
    take equal times; other code may wait for anything, so it never runs on the event loop.
    """

    rows_max: int
    queue_max: int
    parallel: int
    is_steady: bool = True


class RunPlaces(NamedTuple):
    """Where a worker's copies run: threads for longer runs, and the journal in which runs stand."""

    pool: ThreadPoolExecutor
    journal: run_journal.RunJournal


shared_limits = functools.lru_cache(maxsize=1024)(BatchLimits)
"""Equal limits are one object: tens of thousands of copies have the same."""


class Batcher:
    """The runs of one copy, for one event loop.

    `key` is the copy's in the journal, empty if its runs can't end this process.
    """

    __slots__ = (
        "_call_s",
        "_key",
        "_limits",
        "_loaded",
        "_places",
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
        key: str = "",
    ) -> None:
        """`run_s` is the measured time of one row's run, or None if it is unknown."""
        self.joining = joining
        self._loaded = loaded
        self._limits = limits
        self._places = places
        self._key = key
        # An unknown time counts as long, so the first run goes to a thread, where it is measured.
        self._row_s = QUICK_RUN_S if run_s is None else run_s
        self._call_s = self._row_s
        # A list: an empty deque takes ten times the memory, and there are tens of thousands. The
        # list is short, so taking from its front is quick.
        self._waiting: list[_Job] = []
        # A tuple, because all empty tuples are one object.
        self._runs: tuple[_Run, ...] = ()
        self._saturated_at_s: float | None = None

    def run(
        self, request: RunRequest, stats: model_stats.ModelStats
    ) -> Tensors | asyncio.Future[Tensors]:
        """Run the model; return the outputs for this request's rows, or a future of them.

        Raises ModelRaised if the model's code raises, Overloaded if too many requests wait. The
        future may raise ModelRaised too, or DeadlineExceeded if the deadline passes in the queue.
        """
        if self._is_quick(request.rows):
            began_s = time.perf_counter()
            self._places.journal.begin(self._key)
            try:
                outputs = self._predict(request)
            finally:
                self._places.journal.end()
            self._learn(request.rows, time.perf_counter() - began_s, stats)
            return outputs
        if len(self._waiting) >= self._limits.queue_max:
            raise errors.Overloaded(
                f"{len(self._waiting)} requests wait for this model",
                retry_after_s=max(1.0, self._call_s),
            )
        loop = asyncio.get_running_loop()
        job = _Job(request, loop.time(), loop.create_future())
        self._waiting.append(job)
        self._start(stats)
        if len(self._waiting) > 1 and _can_join(self._waiting[-2].request, request):
            self.joining.note_demand()
        self._note_saturation(job.arrived_s, stats)
        return job.answer

    def abandon(self, answer: asyncio.Future[Any]) -> asyncio.Future[Any] | None:
        """Forget a request whose caller has left. If its run has begun, return the run's future."""
        answer.cancel()
        for index, job in enumerate(self._waiting):
            if job.answer is answer:
                del self._waiting[index]
                return None
        return next((run.end for run in self._runs if run.has(answer)), None)

    def is_awaited(self, end: asyncio.Future[Any]) -> bool:
        """Return whether a caller still waits for the run of this future."""
        batches = (run.batch for run in self._runs if run.end is end)
        return any(not job.answer.done() for batch in batches for job in batch)

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
            end = asyncio.get_running_loop().run_in_executor(
                self._places.pool, self._run_batch, batch
            )
            run = _Run(batch, end)
            self._runs += (run,)
            end.add_done_callback(functools.partial(self._finish, run, stats))

    def _next_batch(self, stats: model_stats.ModelStats) -> list[_Job]:
        """Take the next jobs that may run together, in order; refuse those past their deadlines.

        A batch takes all waiting jobs at once. Even if a run of n rows is not quicker than n runs,
        callers wait equally long on average (Little's law), so smaller batches gain nothing.
        """
        batch: list[_Job] = []
        rows, rows_max = 0, self._rows_max
        now_s = asyncio.get_running_loop().time()
        while self._waiting:
            job = self._waiting[0]
            if job.answer.done() or job.request.expires_s <= now_s:
                self._waiting.pop(0)
                _settle(
                    job,
                    errors.DeadlineExceeded(
                        "Deadline Exceeded: the request waited for its turn until then"
                    ),
                )
                continue
            is_full = rows + job.request.rows > rows_max
            if batch and (is_full or not _can_join(batch[0].request, job.request)):
                break
            self._waiting.pop(0)
            stats.queued.record(now_s - job.arrived_s)
            batch.append(job)
            rows += job.request.rows
        return batch

    def _run_batch(self, batch: Sequence[_Job]) -> _Finished:
        """Run the jobs whose callers still wait, in a thread that may have been late to start."""
        began_s = time.perf_counter()
        wanted = [job for job in batch if not job.answer.done()]
        with self._places.journal.running(self._key):
            outcomes = self._outcomes(wanted) if wanted else []
        return _Finished(wanted, outcomes, time.perf_counter() - began_s)

    def _outcomes(self, batch: Sequence[_Job]) -> Sequence[Outcome]:
        """Run the jobs joined; if that fails, one by one, so that each gets its own error."""
        if len(batch) == 1:
            return [self._outcome(batch[0])]
        try:
            joined = list(_split(self._predict(_join(batch)), batch))
        except _RowsLost as lost:
            self.joining.stop(lost.message)
        except (errors.MeshError, MemoryError):
            pass
        else:
            return self._watched(batch, joined)
        return [self._outcome(job) for job in batch]

    def _watched(self, batch: Sequence[_Job], joined: list[Tensors]) -> Sequence[Outcome]:
        """Return the joined outcomes; or those of the jobs alone, if some are run alone and differ.

        A difference means that rows influence each other, so requests are no longer joined.
        """
        count = self.joining.count_run()
        checked = batch[:count] if count >= 0 else batch
        alone = [self._outcome(job) for job in checked]
        pairs = zip(alone, joined, strict=False)
        difference = next(filter(None, itertools.starmap(_difference, pairs)), None)
        if difference is None:
            return joined
        self.joining.stop(f"a joined run gave another answer than a request alone: {difference}")
        return alone + [self._outcome(job) for job in batch[len(alone) :]]

    def _outcome(self, job: _Job) -> Outcome:
        try:
            return self._predict(job.request)
        except errors.MeshError as error:
            return error

    def _predict(self, request: RunRequest) -> Tensors:
        try:
            if request.details is None:
                return self._loaded.predict(request.inputs, request.outputs)
            return self._loaded.predict_request(request.inputs, request.outputs, request.details)
        except errors.MeshError:
            raise
        except BaseException as error:
            # A model's code may raise anything, and its caller must get the error: a
            # KeyboardInterrupt would end the worker, a CancelledError leave the request waiting.
            raise errors.ModelRaised(f"{type(error).__name__}: {error}") from error

    def _finish(
        self, run: _Run, stats: model_stats.ModelStats, end: asyncio.Future[_Finished]
    ) -> None:
        self._runs = tuple(other for other in self._runs if other is not run)
        jobs, outcomes, took_s = end.result()
        if jobs:
            self._learn(sum(job.request.rows for job in jobs), took_s, stats)
        for job, outcome in zip(jobs, outcomes, strict=True):
            _settle(job, outcome)
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


def _settle(job: _Job, outcome: Outcome) -> None:
    if job.answer.done():
        return
    if isinstance(outcome, errors.MeshError):
        job.answer.set_exception(outcome)
    else:
        job.answer.set_result(outcome)


def _can_join(first: RunRequest, other: RunRequest) -> bool:
    """Return whether both want the same outputs of inputs that differ only in their rows.

    The columns of a data frame come in any datatype, and joining would make one of two.
    """
    if not first.rows or not other.rows or first.outputs != other.outputs:
        return False
    if first.details is not None:
        return False
    return first.inputs.keys() == other.inputs.keys() and all(
        array.shape[1:] == other.inputs[name].shape[1:] and array.dtype == other.inputs[name].dtype
        for name, array in first.inputs.items()
    )


def _join(batch: Sequence[_Job]) -> RunRequest:
    """Return one request with the jobs' inputs, joined along the first dimension."""
    first = batch[0].request
    inputs = {
        name: np.concatenate([job.request.inputs[name] for job in batch]) for name in first.inputs
    }
    return RunRequest(inputs, first.outputs, sum(job.request.rows for job in batch), 0.0)


class _RowsLost(errors.ModelRaised):
    """An output of a joined run has more or fewer rows than its inputs."""


def _difference(alone: Outcome, joined: Tensors) -> str | None:
    """Return in what a request's answer alone differs from that of a joined run, None if equal."""
    if isinstance(alone, errors.MeshError):
        return f"alone it is refused ({alone.message})"
    return next(
        (
            f"output {name!r} {row_proof.describe_difference(array, joined[name])}"
            for name, array in alone.items()
            if not row_proof.is_close(array, joined[name])
        ),
        None,
    )


def _split(outputs: Tensors, batch: Sequence[_Job]) -> Iterator[Tensors]:
    """Yield each job's rows of joined outputs. Raises _RowsLost if an output has other rows."""
    rows = sum(job.request.rows for job in batch)
    if any(array.shape[:1] != (rows,) for array in outputs.values()):
        raise _RowsLost("an output has not one row for each row of a joined run")
    start = 0
    for job in batch:
        end = start + job.request.rows
        yield {name: array[start:end] for name, array in outputs.items()}
        start = end
