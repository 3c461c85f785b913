"""Figures of runs of load, for each system, and the medians of all rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

NOT_MEASURED = float("nan")


@dataclass(frozen=True)
class Run:
    """One run of load, or the medians of several. CPU and p99.9 are not always measured."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float = NOT_MEASURED
    cpu_us: float = NOT_MEASURED


@dataclass(frozen=True)
class Figures:
    """One system in one round, or the medians of all rounds.

    `runs` has each run by its name, in order; `ready_s` is from start to first answer.
    """

    runs: Mapping[str, Run]
    memory_mib: float = NOT_MEASURED
    ready_s: float = NOT_MEASURED
    cpu_us_by_process: Mapping[str, float] = field(default_factory=dict)


# Every system that could be measured, by name.
Round = Mapping[str, Figures]


def in_flight(number: int) -> str:
    """Return the name of a run of h2load with that many requests in flight."""
    return f"{number} in flight"


def by_client(kind: str, number: int) -> str:
    """Return the name of a run of Python clients."""
    return f"{kind}, {number} in flight"


def medians(rounds: Sequence[Round]) -> dict[str, Figures]:
    """Return each system's medians of the rounds in which it was measured."""
    names = dict.fromkeys(name for one_round in rounds for name in one_round)
    return {
        name: _middle([one_round[name] for one_round in rounds if name in one_round])
        for name in names
    }


def _middle(several: Sequence[Figures]) -> Figures:
    keys = dict.fromkeys(key for figures in several for key in figures.runs)
    runs = {
        key: _middle_run([figures.runs[key] for figures in several if key in figures.runs])
        for key in keys
    }
    return Figures(
        runs,
        *(
            statistics.median(getattr(figures, name) for figures in several)
            for name in ("memory_mib", "ready_s")
        ),
    )


def _middle_run(several: Sequence[Run]) -> Run:
    return Run(
        *(statistics.median(getattr(run, field.name) for run in several) for field in fields(Run))
    )


def as_json(rounds: Sequence[Round]) -> list[dict[str, object]]:
    """Return the rounds as a file has them."""
    return [{name: asdict(figures) for name, figures in one_round.items()} for one_round in rounds]
