"""What is counted for a whole worker: plain numbers, read when somebody asks."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

LATENCY_BOUNDS_S = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)


class Latencies:
    """A histogram of seconds from a request's arrival to its answer."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.total_s = 0.0

    def add(self, took_s: float) -> None:
        """One answer."""
        self.counts[bisect.bisect_left(LATENCY_BOUNDS_S, took_s)] += 1
        self.total_s += took_s


@dataclass(slots=True)
class WorkerLoad:
    """The whole worker's requests: all that were answered, those answered with an error, and those that it holds now."""

    requests: int = 0
    failures: int = 0
    in_flight: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    kinds: dict[str, int] = field(default_factory=dict)

    def failed(self, kind: str) -> None:
        """A request is answered with this kind of error."""
        self.failures += 1
        self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def answered(self, took_s: float) -> None:
        """A request is answered, well or not."""
        self.requests += 1
        self.latencies.add(took_s)
