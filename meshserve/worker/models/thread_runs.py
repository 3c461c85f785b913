"""Requests that wait for a run of their model, and the runs that threads perform for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from meshserve import errors
from meshserve.worker.models import run_requests

PATIENCE_S = 600.0
"""How long a request without a deadline may wait for its turn."""


@dataclass(slots=True)
class Job:
    """A request that waits for a run, or is in one. `arrived_s` is on the event loop's clock."""

    request: run_requests.RunRequest
    arrived_s: float
    answer: asyncio.Future[run_requests.Tensors]

    @property
    def expires_s(self) -> float:
        """When it has waited for its turn for too long."""
        return min(self.request.expires_s, self.arrived_s + PATIENCE_S)


class Finished(NamedTuple):
    """The result of a run: its jobs, their outcomes in the same order, and the seconds it took."""

    jobs: Sequence[Job]
    outcomes: Sequence[run_requests.Outcome]
    took_s: float


@dataclass(slots=True, eq=False)
class Run:
    """Jobs that a thread runs. `began_s` is when it began, None until then.

    `left_s` is when nobody was found to wait for it any more. `is_hung`: too long ago.
    """

    batch: Sequence[Job]
    end: asyncio.Future[Finished] = field(init=False)
    began_s: float | None = None
    left_s: float | None = None
    is_hung: bool = False

    @property
    def is_awaited(self) -> bool:
        """Whether a caller still waits for it."""
        return any(not job.answer.done() for job in self.batch)

    def has(self, answer: asyncio.Future[run_requests.Tensors]) -> bool:
        """Return whether one of the jobs is answered by this future, of arrays of any shape."""
        return any(job.answer is answer for job in self.batch)


def late(what: str) -> errors.DeadlineExceeded:
    """Return the error of a request whose time is over, in gRPC's own words and then ours."""
    return errors.DeadlineExceeded(f"Deadline Exceeded: {what}")


def settle(job: Job, outcome: run_requests.Outcome) -> None:
    """Answer the request, unless it was answered or its caller has left."""
    if job.answer.done():
        return
    if isinstance(outcome, errors.MeshError):
        job.answer.set_exception(outcome)
    else:
        job.answer.set_result(outcome)
