"""Figures of bench/llm_overhead.py: medians, comparisons with intervals, tables and goals."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bench import results

STREAMS = (1, 16)
MESH, BARE = "meshserve", "vllm serve"
SPEED_RATIO_MIN, TTFT_MS_MAX = 0.99, 1.0
CHANCES, CHANCE_PERCENTS = 2_000, (2.5, 97.5)


@dataclass(frozen=True)
class Figures:
    """One system under one load in one round, or the medians of all rounds."""

    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    cpu_us_per_token: float


@dataclass(frozen=True)
class Compared:
    """What the mesh adds at one number of streams: medians of rounds, and 95 % intervals."""

    streams: int
    speed_ratio: float
    ttft_added_ms: float
    speed_between: tuple[float, float]
    ttft_between_ms: tuple[float, float]

    def claims(self, medians: Mapping[str, Figures]) -> tuple[results.Claim, ...]:
        """Return the goals, beside the medians of both."""
        at, ours, theirs = (
            f"{self.streams} stream{'s' if self.streams > 1 else ''}",
            medians[MESH],
            medians[BARE],
        )
        is_fast, is_soon = self.speed_ratio >= SPEED_RATIO_MIN, self.ttft_added_ms <= TTFT_MS_MAX
        speed = (
            ours.tokens_per_s,
            "tokens/s",
            f"≥ {SPEED_RATIO_MIN} ×",
            is_fast,
            BARE,
            theirs.tokens_per_s,
            self.speed_ratio,
        )
        ttft = (self.ttft_added_ms, "ms", f"≤ {TTFT_MS_MAX:g} ms", is_soon)
        return results.Claim(f"tokens a second, {at}", *speed), results.Claim(
            f"TTFT p50 more than {BARE}'s, {at}", *ttft
        )


Round = Mapping[int, Mapping[str, Figures]]


def medians(rounds: list[Round]) -> Round:
    return {
        streams: {
            name: _median([figures_by_streams[streams][name] for figures_by_streams in rounds])
            for name in (MESH, BARE)
        }
        for streams in STREAMS
    }


def _median(figures: list[Figures]) -> Figures:
    return Figures(
        *(
            statistics.median(column)
            for column in zip(*(asdict(run).values() for run in figures), strict=True)
        )
    )


def compared(rounds: list[Round]) -> list[Compared]:
    """Compare round by round, so that a slow minute of the machine counts for both."""
    rows = []
    for streams in STREAMS:
        pairs = [(one_round[streams][MESH], one_round[streams][BARE]) for one_round in rounds]
        ratios = [ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in pairs]
        added_ms = [ours.ttft_p50_ms - theirs.ttft_p50_ms for ours, theirs in pairs]
        rows.append(
            Compared(
                streams,
                statistics.median(ratios),
                statistics.median(added_ms),
                between(ratios),
                between(added_ms),
            )
        )
    return rows


def between(values: Sequence[float]) -> tuple[float, float]:
    """Return where the median of 95 of 100 runs would lie: percentile bootstrap (Efron 1979)."""
    drawn = np.random.default_rng(0).choice(values, (CHANCES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), CHANCE_PERCENTS)
    return float(low), float(high)


def table(title: str, figures: Round) -> results.Table:
    """Return a row for each number of streams and system."""
    head = ("streams, system", "tokens/s", "TTFT p50 ms", "p95 ms", "CPU µs/token")
    rows = (
        (
            f"{streams}, {name}",
            f"{f.tokens_per_s:,.1f}",
            f"{f.ttft_p50_ms:.2f}",
            f"{f.ttft_p95_ms:.2f}",
            f"{f.cpu_us_per_token:,.0f}",
        )
        for streams, by_system in figures.items()
        for name, f in by_system.items()
    )
    return results.Table(title, head, tuple(rows))


def spread(beside: Sequence[Compared]) -> results.Table:
    """Return the table of intervals."""
    rows = (
        (
            f"{comparison.streams}",
            f"{comparison.speed_ratio:.3f} ×",
            "{:.3f} to {:.3f} ×".format(*comparison.speed_between),
            f"{comparison.ttft_added_ms:+.2f}",
            "{:+.2f} to {:+.2f}".format(*comparison.ttft_between_ms),
        )
        for comparison in beside
    )
    return results.Table(
        "medians of rounds",
        ("streams", "tokens/s", "95 % of runs", "TTFT p50 + ms", "95 % of runs"),
        tuple(rows),
    )


def summarise(
    args: argparse.Namespace, rounds: list[Round], at_rest: Mapping[str, Mapping[str, float]]
) -> results.Results:
    """Return the table of medians and the goals."""
    middle, beside = medians(rounds), compared(rounds)
    resting = results.Table(
        "cores taken at rest",
        ("system", "cores"),
        tuple((name, f"{sum(at_rest[name].values()):.3f}") for name in at_rest),
    )
    return results.Results(
        rounds=len(rounds),
        sizes={"requests": args.requests, "tokens": args.tokens, "streams": STREAMS},
        claims=tuple(
            claim
            for comparison in beside
            for claim in comparison.claims(middle[comparison.streams])
        ),
        tables=(table("medians", middle), spread(beside), resting),
        figures={"at_rest_cores": at_rest, "rounds": [_plain(one_round) for one_round in rounds]},
    )


def _plain(figures: Round) -> dict[str, dict[str, object]]:
    return {
        str(streams): {name: asdict(f) for name, f in by_system.items()}
        for streams, by_system in figures.items()
    }
