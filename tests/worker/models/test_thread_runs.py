from __future__ import annotations

import asyncio
import math

import pytest

from meshserve import errors
from meshserve.worker.models import run_requests, thread_runs


def job(expires_s: float = math.inf) -> thread_runs.Job:
    request = run_requests.RunRequest({}, (), 1, expires_s)
    return thread_runs.Job(request, 100.0, asyncio.get_running_loop().create_future())


async def test_a_request_waits_for_its_turn_until_its_deadline_or_as_long_as_anybody() -> None:
    assert job(150.0).expires_s == 150.0
    assert job().expires_s == 100.0 + thread_runs.PATIENCE_S


async def test_a_run_is_awaited_until_all_its_requests_are_answered() -> None:
    first, second = job(), job()
    run = thread_runs.Run([first, second])
    assert (run.is_awaited, run.has(second.answer), run.has(job().answer)) == (True, True, False)
    thread_runs.settle(first, {})
    assert run.is_awaited
    second.answer.cancel()
    assert not run.is_awaited


async def test_a_request_is_answered_once() -> None:
    asked = job()
    thread_runs.settle(asked, thread_runs.late("too slow"))
    thread_runs.settle(asked, {})
    with pytest.raises(errors.DeadlineExceeded, match=r"^Deadline Exceeded: too slow$"):
        await asked.answer
