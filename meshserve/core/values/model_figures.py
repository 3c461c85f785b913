"""What requests for one model took and cost, counted in plain numbers that can be added up."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import NamedTuple

from meshserve.core.values import model

LATENCY_BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 1.0, 5.0),
)
"""Few, because each is a series for each model; the next one is at most five times as long."""

ABANDONED = 499
"""The code of a request whose caller left before the answer; nginx has made it known."""


@dataclass(slots=True)
class ModelFigures:
    """Totals of one model over some time. All durations are seconds.

    `latency_counts` has the answers of each bucket of LATENCY_BOUNDS_S, each alone, and last those
    above all bounds; failed requests are among them. `failures` are counted by HTTP status.
    `cold_calls` waited for a load, `cold_s` in all. `joined_rows` shared a run with others.
    """

    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    latency_s: float = 0.0
    request_bytes: int = 0
    answer_bytes: int = 0
    failures: dict[int, int] = field(default_factory=dict)
    cold_calls: int = 0
    cold_s: float = 0.0
    joined_rows: int = 0
    loads: int = 0
    load_s: float = 0.0
    evictions: int = 0

    @property
    def requests(self) -> int:
        """How many requests were answered, well or not."""
        return sum(self.latency_counts)

    def record_answer(self, took_s: float, request_bytes: int, answer_bytes: int) -> None:
        """Count an answer, error or not, and the sizes of both bodies."""
        # From the left, because Prometheus counts a time that equals a bound below it (`le`).
        self.latency_counts[bisect.bisect_left(LATENCY_BOUNDS_S, took_s)] += 1
        self.latency_s += took_s
        self.request_bytes += request_bytes
        self.answer_bytes += answer_bytes

    def record_failure(self, status: int) -> None:
        """Count a request that is answered with this HTTP status, or its gRPC equivalent."""
        self.failures[status] = self.failures.get(status, 0) + 1

    def record_cold_call(self, waited_s: float) -> None:
        """Count a request that waited for its model."""
        self.cold_calls += 1
        self.cold_s += waited_s

    def add(self, other: ModelFigures) -> None:
        """Add the totals of another time or worker; `other` stays unchanged."""
        self.latency_counts = [
            count + more
            for count, more in zip(self.latency_counts, other.latency_counts, strict=True)
        ]
        self.latency_s += other.latency_s
        self.request_bytes += other.request_bytes
        self.answer_bytes += other.answer_bytes
        for status, count in other.failures.items():
            self.failures[status] = self.failures.get(status, 0) + count
        self.cold_calls += other.cold_calls
        self.cold_s += other.cold_s
        self.joined_rows += other.joined_rows
        self.loads += other.loads
        self.load_s += other.load_s
        self.evictions += other.evictions


class BusyModel(NamedTuple):
    """A model's requests at one moment: `in_flight` are all, of which `queued` wait.

    They wait for the model to load or for their turn.
    """

    id: model.ModelId
    in_flight: int
    queued: int


class FiguresBatch(NamedTuple):
    """What a worker counted since its batch before, by model.

    `process` is a random number of the worker's process, whose batches are numbered from 1 on. A
    batch comes again, unchanged, until the worker knows that it has arrived.
    """

    process: int = 0
    number: int = 0
    figures: tuple[tuple[model.ModelId, ModelFigures], ...] = ()


NO_FIGURES = FiguresBatch()
