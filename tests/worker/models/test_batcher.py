from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model, model_stats
from meshserve.worker.models import batcher, joining, run_journal, run_requests, run_watch
from tests import support

FOREVER_S = float("inf")


class Adding(model_runtime.LoadedModel):
    """Adds one to `x`, once `gate` is open. Keeps the rows of each run; negative numbers raise."""

    signature = model.Signature((), ())
    capabilities = model_runtime.Capabilities(is_reentrant=True)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.runs: list[list[Any]] = []
        self.threads: set[str] = set()
        self.forget = 0
        self.error: BaseException = ValueError("négatif")

    def predict(self, inputs: Any, outputs: Any) -> Any:
        self.threads.add(threading.current_thread().name)
        self.runs.append(inputs["x"].tolist())
        assert self.gate.wait(20)
        if (inputs["x"] < 0).any():
            raise self.error
        arrays = {"y": inputs["x"] + 1, "z": inputs["x"][self.forget :]}
        return {name: array for name, array in arrays.items() if not outputs or name in outputs}

    def close(self) -> None:
        pass


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4, "run") as threads:
        yield threads


@pytest.fixture
def adding() -> Adding:
    return Adding()


@pytest.fixture
def stats() -> model_stats.ModelStats:
    return model_stats.ModelStats()


def ask(
    *values: int, outputs: tuple[str, ...] = ("y",), expires_s: float = FOREVER_S
) -> run_requests.RunRequest:
    return run_requests.RunRequest(
        {"x": np.array(values, np.float64)}, outputs, len(values), expires_s
    )


def limits(
    rows_max: int = 8, queue_max: int = 100, parallel: int = 1, **more: Any
) -> batcher.BatchLimits:
    return batcher.BatchLimits(rows_max, queue_max, parallel, **more)


def begin_batcher(adding: Any, limits_: Any, pool: Any, run_s: Any, joined: Any = None) -> Any:
    """Return a batcher that joins if `limits_` let it, and no longer watches its runs."""
    state = joining.JoinState.JOINED if limits_.rows_max > 1 else joining.JoinState.NEVER
    joined = joined or joining.Joining(state, runs=joining.FIRST_RUNS)
    places = batcher.RunPlaces(pool, run_journal.RunJournal(), run_watch.RunWatch())
    return batcher.Batcher(adding, limits_, places, run_s, joined)


async def begin(
    running: batcher.Batcher, stats: model_stats.ModelStats, *requests: run_requests.RunRequest
) -> list[asyncio.Future[Any]]:
    """Return the requests' futures, the first of them running."""
    answers = [running.run(request, stats) for request in requests]
    await asyncio.sleep(0)
    return [answer for answer in answers if isinstance(answer, asyncio.Future)]


async def results(tasks: list[asyncio.Future[Any]]) -> Any:
    """What each came to: its `y`, or the words of its error."""
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [outcome["y"].tolist() if isinstance(outcome, dict) else outcome for outcome in outcomes]


async def test_requests_that_arrive_meanwhile_are_joined_and_get_their_own_rows(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(rows_max=4), pool, None)
    tasks = await begin(running, stats, ask(1), ask(2, 3), ask(4), ask(5), ask(6, 7, 8, 9, 10))
    adding.gate.set()
    assert await results(tasks) == [[2], [3, 4], [5], [6], [7, 8, 9, 10, 11]]
    assert adding.runs == [[1], [2, 3, 4, 5], [6, 7, 8, 9, 10]]
    assert (stats.computed.count, sorted(stats.batches)) == (3, [1, 4, 5])


async def test_saturated_time_is_counted(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(rows_max=2), pool, None)
    tasks = await begin(running, stats, ask(1), ask(2))
    await asyncio.sleep(0.02)
    assert stats.saturated_s == 0
    tasks += await begin(running, stats, ask(3))
    await asyncio.sleep(0.05)
    adding.gate.set()
    await results(tasks)
    assert 0.04 < stats.saturated_s < 5
    told_s = stats.saturated_s
    running.run(ask(4), stats)
    assert stats.saturated_s == told_s


async def test_requests_of_other_shapes_or_outputs_are_not_joined(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(), pool, None)
    wide = run_requests.RunRequest({"x": np.zeros((1, 2))}, ("y",), 1, FOREVER_S)
    tasks = await begin(running, stats, ask(1), ask(2), wide, ask(3, outputs=("y", "z")), ask(4))
    adding.gate.set()
    assert await results(tasks) == [[2], [3], [[1, 1]], [4], [5]]
    assert len(adding.runs) == 5


async def test_requests_of_other_datatypes_are_not_joined(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(), pool, None)
    whole = run_requests.RunRequest({"x": np.array([2])}, ("y",), 1, FOREVER_S)
    tasks = await begin(running, stats, ask(1), ask(5), whole, whole, ask(3))
    adding.gate.set()
    assert await results(tasks) == [[2], [6], [3], [3], [4]]
    assert [len(run) for run in adding.runs] == [1, 1, 2, 1]


async def test_without_joining_every_request_runs_alone(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(rows_max=1), pool, None)
    tasks = await begin(running, stats, ask(1), ask(2), ask(3))
    adding.gate.set()
    await results(tasks)
    assert adding.runs == [[1], [2], [3]]


async def test_several_run_at_a_time_where_they_may(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(rows_max=1, parallel=3), pool, None)
    tasks = await begin(running, stats, *(ask(number) for number in range(4)))
    await support.wait_until_async(
        lambda: len(adding.runs) == 3, support.WAIT_S, "three runs at a time"
    )
    assert len(adding.threads) == 3
    adding.gate.set()
    assert await results(tasks) == [[1], [2], [3], [4]]


async def test_a_request_that_fails_in_a_batch_fails_alone(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(), pool, None)
    tasks = await begin(running, stats, ask(1), ask(2), ask(-3), ask(4))
    adding.gate.set()
    first, second, bad, last = await results(tasks)
    assert (first, second, last) == ([2], [3], [5])
    assert isinstance(bad, errors.ModelRaised)
    assert bad.message == "ValueError: négatif"


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, support.Unspeakable],
)
@pytest.mark.parametrize("run_s", [None, 1e-6], ids=["in a thread", "on the loop"])
async def test_an_error_that_ends_programs_is_an_answer_too(
    adding: Adding,
    pool: ThreadPoolExecutor,
    stats: model_stats.ModelStats,
    error: type[BaseException],
    run_s: float | None,
) -> None:
    adding.error = error()
    adding.gate.set()
    running = begin_batcher(adding, limits(), pool, run_s)

    async def run(value: int) -> Any:
        answer = running.run(ask(value), stats)
        return await answer if isinstance(answer, asyncio.Future) else answer

    with pytest.raises(errors.ModelRaised, match=error.__name__):
        await run(-1)
    assert (await run(1))["y"].tolist() == [2]


async def test_a_batch_whose_output_lacks_rows_runs_one_by_one(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    adding.forget = 1
    running = begin_batcher(adding, limits(), pool, None)
    tasks = await begin(
        running, stats, ask(1), ask(2, outputs=("y", "z")), ask(3, outputs=("y", "z"))
    )
    adding.gate.set()
    assert await results(tasks) == [[2], [3], [4]]
    assert adding.runs == [[1], [2, 3], [2], [3]]


async def test_a_full_queue_refuses(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(queue_max=2), pool, None)
    tasks = await begin(running, stats, ask(1), ask(2), ask(3))
    with pytest.raises(errors.Overloaded, match="2 requests wait") as caught:
        running.run(ask(4), stats)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1
    adding.gate.set()
    assert await results(tasks) == [[2], [3], [4]]


async def test_an_expired_request_does_not_run(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(rows_max=1), pool, None)
    now_s = asyncio.get_running_loop().time()
    tasks = await begin(running, stats, ask(1), ask(2, expires_s=now_s), ask(3))
    adding.gate.set()
    first, late, last = await results(tasks)
    assert (first, last) == ([2], [4])
    assert isinstance(late, errors.DeadlineExceeded)
    assert adding.runs == [[1], [3]]


async def test_a_cancelled_request_does_not_run(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(rows_max=1), pool, None)
    tasks = await begin(running, stats, ask(1), ask(2), ask(3))
    tasks[1].cancel()
    await asyncio.sleep(0)
    adding.gate.set()
    assert await results([tasks[0], tasks[2]]) == [[2], [4]]
    assert adding.runs == [[1], [3]]


async def test_an_abandoned_request_leaves_the_queue_and_its_place(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(rows_max=1, queue_max=2), pool, None)
    tasks = await begin(running, stats, ask(1), ask(2), ask(3))
    running.abandon(tasks[1])
    assert running.find_end(tasks[1]) is None
    tasks += await begin(running, stats, ask(4))
    adding.gate.set()
    assert await results([tasks[0], *tasks[2:]]) == [[2], [4], [5]]
    assert adding.runs == [[1], [3], [4]]


async def test_a_request_abandoned_in_its_run_is_told_the_runs_end(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(rows_max=1), pool, None)
    tasks = await begin(running, stats, ask(1), ask(2))
    await support.wait_until_async(lambda: len(adding.runs) == 1, support.WAIT_S, "the first run")
    running.abandon(tasks[0])
    end = running.find_end(tasks[0])
    assert end is not None
    assert not end.done()
    adding.gate.set()
    await end
    assert await results(tasks[1:]) == [[3]]
    assert running.find_end(tasks[1]) is None


async def test_a_batch_that_nobody_wants_when_its_thread_comes_is_not_run(
    adding: Adding, stats: model_stats.ModelStats
) -> None:
    with ThreadPoolExecutor(1) as pool:
        busy = threading.Event()
        pool.submit(busy.wait, 20)
        running = begin_batcher(adding, limits(), pool, None)
        (answer,) = await begin(running, stats, ask(1))
        running.abandon(answer)
        end = running.find_end(answer)
        busy.set()
        assert end is not None
        await end
    assert (adding.runs, stats.computed.count) == ([], 0)


async def test_a_quick_run_stays_on_the_event_loop(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    adding.gate.set()
    running = begin_batcher(adding, limits(), pool, run_s=1e-6)
    assert running.run(ask(1), stats)["y"].tolist() == [2]
    assert adding.threads == {threading.current_thread().name}
    with pytest.raises(errors.ModelRaised, match="ValueError: négatif"):
        running.run(ask(-1), stats)


@pytest.mark.parametrize(
    ("run_s", "is_steady", "rows"), [(None, True, 1), (1e-6, False, 1), (1e-6, True, 10_000)]
)
async def test_a_run_that_may_take_long_goes_to_a_thread(
    adding: Adding,
    pool: ThreadPoolExecutor,
    stats: model_stats.ModelStats,
    run_s: float | None,
    is_steady: bool,
    rows: int,
) -> None:
    adding.gate.set()
    running = begin_batcher(adding, limits(is_steady=is_steady), pool, run_s)
    await running.run(ask(*[1] * rows), stats)
    assert threading.current_thread().name not in adding.threads


async def test_a_quick_run_waits_behind_one_in_a_thread(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(), pool, run_s=1e-6)
    first = running.run(ask(*[1] * 10_000), stats)
    second = running.run(ask(1), stats)
    assert isinstance(second, asyncio.Future)
    adding.gate.set()
    assert (await results([second])) == [[2]]
    await first


class Summing(Adding):
    """Adds to each row those before it, as a recurrent network does."""

    def predict(self, inputs: Any, outputs: Any) -> Any:
        super().predict(inputs, outputs)
        return {"y": inputs["x"].cumsum()}


async def test_a_joined_run_that_answers_otherwise_ends_joining_and_its_answers_are_not_used(
    pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    model_ = Summing()
    joined = joining.Joining(joining.JoinState.JOINED)
    running = begin_batcher(model_, limits(is_steady=False), pool, None, joined)
    tasks = await begin(running, stats, ask(1), ask(2), ask(3), ask(4))
    model_.gate.set()
    assert await results(tasks) == [[1], [2], [3], [4]]
    assert (joined.state, joined.take_stop()) == (joining.JoinState.STOPPED, True)
    assert joined.reason.endswith("output 'y' differs by up to 2, and its values reach 3")
    del model_.runs[:]
    answers = [running.run(ask(number), stats) for number in (5, 6, 7)]
    await asyncio.gather(*answers)
    assert model_.runs == [[5], [6], [7]]


async def test_requests_that_wait_unjoined_ask_for_a_proof(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    joined = joining.Joining(joining.JoinState.UNPROVEN)
    running = begin_batcher(adding, limits(), pool, None, joined)
    tasks = await begin(running, stats, ask(1), ask(2))
    assert not joined.is_wanted
    tasks += await begin(running, stats, ask(3))
    assert joined.is_wanted
    joined.begin_proof()
    joined.end_proof(None)
    adding.gate.set()
    await results(tasks)
    assert adding.runs[:2] == [[1], [2, 3]]


async def test_inputs_without_a_number_of_rows_run_alone(
    adding: Adding, pool: ThreadPoolExecutor, stats: model_stats.ModelStats
) -> None:
    running = begin_batcher(adding, limits(), pool, None)
    empty = run_requests.RunRequest({"x": np.zeros(0)}, ("y",), 0, FOREVER_S)
    tasks = await begin(running, stats, ask(1), empty, ask(2), empty, ask(3))
    adding.gate.set()
    assert await results(tasks) == [[2], [], [3], [], [4]]
    assert all(len(run) <= 1 for run in adding.runs)
