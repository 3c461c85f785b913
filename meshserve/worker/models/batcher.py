"""Runs one model: at once where that is quicker than handing it over, else in a thread, joining what arrives meanwhile into a batch."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model_stats

Tensors = Mapping[str, np.ndarray]
Outcome = Tensors | errors.MeshError

AT_ONCE_S = 0.0005
"""A run that is expected to take less stays on the event loop: handing it to a thread costs about a tenth of that."""

SMOOTHING = 0.2


@dataclass(slots=True)
class RunRequest:
    """What a run is asked for: checked inputs, output names (empty: all), rows, and until when, on the event loop's clock."""

    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int
    expires_s: float


@dataclass(slots=True)
class _Job:
    ask: RunRequest
    came_s: float
    answer: asyncio.Future[Tensors]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`rows_max`: rows in a joined batch, 1 for no joining. `queue_max`: requests that may wait. `parallel`: runs at a time.

    `is_steady`: equal calls take equal times. A user's code may wait for anything, and must not make the event loop wait with it.
    """

    rows_max: int
    queue_max: int
    parallel: int
    is_steady: bool = True


class Batcher:
    """One copy's executions. Lives on one event loop; `pool` runs what is too slow for it."""

    __slots__ = (
        "_call_s",
        "_limits",
        "_loaded",
        "_pool",
        "_pressed_at_s",
        "_row_s",
        "_running",
        "_waiting",
    )

    def __init__(
        self,
        loaded: model_runtime.LoadedModel,
        limits: BatchLimits,
        pool: ThreadPoolExecutor,
        run_s: float | None,
    ) -> None:
        self._loaded = loaded
        self._limits = limits
        self._pool = pool
        self._row_s = AT_ONCE_S if run_s is None else run_s
        self._call_s = self._row_s
        self._waiting: list[
            _Job
        ] = []  # empty, it takes a tenth of what a deque takes; it is bounded, and short
        self._running = 0
        self._pressed_at_s: float | None = None

    def is_quick(self, rows: int) -> bool:
        """Whether so many rows are expected to be done before a thread would have begun."""
        if self._running or self._waiting or not self._limits.is_steady:
            return False
        return self._call_s < AT_ONCE_S and self._row_s * rows < AT_ONCE_S

    def run_now(
        self, inputs: Tensors, outputs: tuple[str, ...], rows: int, counts: model_stats.ModelStats
    ) -> Tensors:
        """Run on this very thread. Raises what the model's code raised as ModelRaised."""
        began_s = time.perf_counter()
        answer = self._predict(inputs, outputs)
        self._learn(rows, time.perf_counter() - began_s, counts)
        return answer

    async def run(self, ask: RunRequest, counts: model_stats.ModelStats) -> Tensors:
        """Run in a thread, perhaps together with others.

        Raises Overloaded if too many wait, DeadlineExceeded if its time came before its turn, ModelRaised for the model's own faults.
        """
        if len(self._waiting) >= self._limits.queue_max:
            raise errors.Overloaded(
                f"{len(self._waiting)} requests wait for this model",
                retry_after_s=max(1.0, self._call_s),
            )
        loop = asyncio.get_running_loop()
        job = _Job(ask, loop.time(), loop.create_future())
        self._waiting.append(job)
        self._start(counts)
        self._press(job.came_s, counts)
        return await job.answer

    def _start(self, counts: model_stats.ModelStats) -> None:
        while self._waiting and self._running < self._limits.parallel:
            batch = self._next_batch(counts)
            if not batch:
                return
            self._running += 1
            done = asyncio.get_running_loop().run_in_executor(self._pool, self._run_batch, batch)
            done.add_done_callback(functools.partial(self._finished, batch, counts))

    def _next_batch(self, counts: model_stats.ModelStats) -> list[_Job]:
        """The next jobs that may run together, in order; those whose time is over are told so."""
        batch: list[_Job] = []
        rows = 0
        now_s = asyncio.get_running_loop().time()
        while self._waiting:
            job = self._waiting[0]
            if job.answer.done() or job.ask.expires_s <= now_s:
                self._waiting.pop(0)
                _settle(
                    job,
                    errors.DeadlineExceeded(
                        "the deadline passed while the request waited for its turn"
                    ),
                )
                continue
            if batch and (
                rows + job.ask.rows > self._limits.rows_max or not _can_join(batch[0].ask, job.ask)
            ):
                break
            self._waiting.pop(0)
            counts.queued.record(now_s - job.came_s)
            batch.append(job)
            rows += job.ask.rows
        return batch

    def _run_batch(self, batch: Sequence[_Job]) -> tuple[list[Outcome], float]:
        """In the thread: the outcomes in order, and the seconds that they took."""
        began_s = time.perf_counter()
        outcomes = self._outcomes(batch)
        return outcomes, time.perf_counter() - began_s

    def _outcomes(self, batch: Sequence[_Job]) -> list[Outcome]:
        """Joined if there are several; one by one if joined they fail, so that each gets only its own fault."""
        if len(batch) > 1:
            try:
                return list(_split(self._predict(_joined(batch), batch[0].ask.outputs), batch))
            except errors.MeshError:
                return [self._outcome(job) for job in batch]
        return [self._outcome(batch[0])]

    def _outcome(self, job: _Job) -> Outcome:
        try:
            return self._predict(job.ask.inputs, job.ask.outputs)
        except errors.MeshError as error:
            return error

    def _predict(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        try:
            return self._loaded.predict(inputs, outputs)
        except errors.MeshError:
            raise
        except Exception as error:  # a model's code may raise anything, and its caller must hear it
            raise errors.ModelRaised(f"{type(error).__name__}: {error}") from error

    def _finished(
        self,
        batch: Sequence[_Job],
        counts: model_stats.ModelStats,
        done: asyncio.Future[tuple[list[Outcome], float]],
    ) -> None:
        self._running -= 1
        outcomes, took_s = done.result()
        self._learn(sum(job.ask.rows for job in batch), took_s, counts)
        for job, outcome in zip(batch, outcomes, strict=True):
            _settle(job, outcome)
        self._start(counts)
        self._press(asyncio.get_running_loop().time(), counts)

    def _press(self, now_s: float, counts: model_stats.ModelStats) -> None:
        """Count the time in which more wait than the next run takes in."""
        if self._pressed_at_s is not None:
            counts.saturated_s += now_s - self._pressed_at_s
        self._pressed_at_s = now_s if len(self._waiting) >= self._limits.rows_max else None

    def _learn(self, rows: int, took_s: float, counts: model_stats.ModelStats) -> None:
        self._call_s = _smoothed(self._call_s, took_s)
        self._row_s = _smoothed(self._row_s, took_s / max(1, rows))
        counts.record_run(rows, took_s)


def _smoothed(known_s: float, took_s: float) -> float:
    """One run that took far longer than usual says more about the machine than about the model: it counts as twice the usual."""
    return known_s + SMOOTHING * (min(took_s, 2 * known_s) - known_s)


def _settle(job: _Job, outcome: Outcome) -> None:
    if job.answer.done():
        return
    if isinstance(outcome, errors.MeshError):
        job.answer.set_exception(outcome)
    else:
        job.answer.set_result(outcome)


def _can_join(first: RunRequest, other: RunRequest) -> bool:
    return first.outputs == other.outputs and all(
        name in other.inputs and array.shape[1:] == other.inputs[name].shape[1:]
        for name, array in first.inputs.items()
    )


def _joined(batch: Sequence[_Job]) -> Tensors:
    return {
        name: np.concatenate([job.ask.inputs[name] for job in batch])
        for name in batch[0].ask.inputs
    }


def _split(answer: Tensors, batch: Sequence[_Job]) -> Iterator[Tensors]:
    """Each job's rows of a joined answer. Raises ModelRaised if some output has not one row for each row in."""
    total = sum(job.ask.rows for job in batch)
    if any(array.shape[:1] != (total,) for array in answer.values()):
        raise errors.ModelRaised("an output has not one row for each row of the batch")
    start = 0
    for job in batch:
        yield {name: array[start : start + job.ask.rows] for name, array in answer.items()}
        start += job.ask.rows
