"""Replay traces with a fixed seed through the core's eviction policies and its hash ring.

Every decision is made by the product's own residency; only loads take no time. Misses and the time
that they cost are compared with a bound that no policy can beat, and many workers on the ring with
one worker that has all their bytes. The first quarter of a trace fills the memory and is not
counted. The result is the same on every machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import program, results, shelves, traces
from meshserve.core.memory import eviction

BUDGET_SHARES = (0.05, 0.2)
RING_SHARE = 0.2
FILLING_SHARE = 0.25
RING_TARGETS = {8: 0.99, 128: 0.98}
LOST_RATIO_MAX, QUICK_LOST_RATIO_MAX = 0.85, 1.0
QUICK_RING_RATIO = 0.95


@dataclass(frozen=True)
class Played:
    """A trace and one worker with a share of all bytes: outcomes by policy, and bounds."""

    trace: str
    share: float
    outcomes: dict[str, shelves.Outcome]
    misses_min: float
    lost_s_min: float


@dataclass(frozen=True)
class Sharded:
    """A policy's hit ratio by the number of workers; with 1 there is one memory of all."""

    policy: str
    hit_ratios: dict[int, float]
    lost_s: dict[int, float]


def play(trace: traces.Trace, models: traces.Models, share: float) -> Played:
    """Replay the trace with both policies, and compute the bounds."""
    budget_bytes, counted_from = int(models.bytes.sum() * share), int(len(trace) * FILLING_SHARE)
    nowhere_else = np.zeros(len(models), np.int64)
    outcomes = {
        policy: shelves.replay(
            trace, models, [shelves.Shelf(models, budget_bytes, policy)], nowhere_else, counted_from
        )
        for policy in eviction.POLICIES
    }
    bounds = (
        shelves.optimum(trace, models, budget_bytes, counted_from, values)
        for values in (np.ones(len(models)), models.load_s)
    )
    return Played(trace.name, share, outcomes, *bounds)


def shard(
    trace: traces.Trace, models: traces.Models, workers: tuple[int, ...], policy: str
) -> Sharded:
    """Replay the trace with the same bytes in one worker, and cut in equal parts."""
    counted_from, hit_ratios, lost_s = int(len(trace) * FILLING_SHARE), {}, {}
    for count in (1, *workers):
        budget_bytes = int(models.bytes.sum() * RING_SHARE / count)
        shards = [shelves.Shelf(models, budget_bytes, policy) for _ in range(count)]
        outcome = shelves.replay(
            trace, models, shards, shelves.homes(count, len(models)), counted_from
        )
        hit_ratios[count], lost_s[count] = outcome.hit_ratio, outcome.lost_s
    return Sharded(policy, hit_ratios, lost_s)


def claims(
    played: list[Played], sharded: list[Sharded], *, is_quick: bool
) -> Iterator[results.Claim]:
    """Return the goals; in the quick version, floors."""
    (lru,) = [shards for shards in sharded if shards.policy == "lru"]
    for workers, target in RING_TARGETS.items():
        if workers in lru.hit_ratios:
            peer = ("one global LRU", lru.hit_ratios[1] * 100)
            bound = QUICK_RING_RATIO if is_quick else target
            yield results.times(
                f"hits of the ring, {workers} workers, sizes log-normal",
                "%",
                lru.hit_ratios[workers] * 100,
                peer,
                bound,
            )
    for run in played:
        peer = ("LRU", run.outcomes["lru"].lost_s)
        what = f"time lost to loads with GDSF, {run.trace}, memory for {run.share:.0%}"
        yield results.times_at_most(
            what,
            "s",
            run.outcomes["gdsf"].lost_s,
            peer,
            QUICK_LOST_RATIO_MAX if is_quick else LOST_RATIO_MAX,
        )


def policies_table(played: list[Played]) -> results.Table:
    """Return misses and lost time, as figures and beside the bound."""
    rows = []
    for run in played:
        for policy, outcome in run.outcomes.items():
            ratios = (
                outcome.misses / run.misses_min,
                outcome.lost_s,
                outcome.lost_s / run.lost_s_min,
            )
            cells = (f"{outcome.misses:,}", *(results.figure(ratio) for ratio in ratios))
            rows.append((run.trace, f"{run.share:.0%}", policy, f"{outcome.hit_ratio:.2%}", *cells))
    head = ("trace", "memory", "policy", "hits", "misses", "× bound", "lost s", "× bound")
    return results.Table(
        "policies beside what no policy can beat (PFOO-L, sees all that comes)", head, tuple(rows)
    )


def ring_table(sharded: list[Sharded]) -> results.Table:
    """Return hits by workers, and their share of one memory's."""
    rows = []
    for shards in sharded:
        for workers, ratio in shards.hit_ratios.items():
            lost = f"{shards.lost_s[workers] / shards.lost_s[1]:.2f}"
            rows.append(
                (
                    shards.policy,
                    str(workers),
                    f"{ratio:.2%}",
                    f"{ratio / shards.hit_ratios[1]:.2%}",
                    lost,
                )
            )
    return results.Table(
        "the ring beside one memory of all bytes",
        ("policy", "workers", "hits", "of global", "lost time ×"),
        tuple(rows),
    )


def charts(played: list[Played]) -> Iterator[results.Chart]:
    """Return the chart of lost time beside the bound."""
    bars = []
    for run in (run for run in played if run.share == BUDGET_SHARES[-1]):
        for policy, outcome in run.outcomes.items():
            bars.append(
                results.Bar(f"{run.trace}, {policy.upper()}", outcome.lost_s, policy == "gdsf")
            )
        bars.append(results.Bar(f"{run.trace}, no policy can beat", run.lost_s_min))
    yield results.Chart(
        "eviction",
        f"Time lost to loads, memory for {BUDGET_SHARES[-1]:.0%} of all bytes",
        "s",
        tuple(bars),
    )


def run(console: Console, args: argparse.Namespace, _folder: Path) -> results.Results:
    models = traces.models(args.models or (2_000 if args.quick else 20_000))
    requests = args.requests or (20_000 if args.quick else 400_000)
    workers = (8,) if args.quick else (8, 32, 128)
    played = []
    for make in traces.TRACES[:2] if args.quick else traces.TRACES:
        trace = make(len(models), requests)
        for share in BUDGET_SHARES[-1:] if args.quick else BUDGET_SHARES:
            began_s = time.monotonic()
            played.append(play(trace, models, share))
            console.print(
                f"{trace.name}, memory for {share:.0%}: {time.monotonic() - began_s:.0f} s",
                highlight=False,
            )
    sharded = []
    for policy in ("lru",) if args.quick else tuple(eviction.POLICIES):
        console.print(f"the ring, {policy}")
        sharded.append(shard(traces.zipf(len(models), requests), models, workers, policy))
    figures = {
        "played": [asdict(run) for run in played],
        "sharded": [asdict(shards) for shards in sharded],
    }
    measured = (
        tuple(claims(played, sharded, is_quick=args.quick)),
        (policies_table(played), ring_table(sharded)),
        tuple(charts(played)),
    )
    return results.Results(
        1, {"models": len(models), "requests": requests, "workers": workers}, *measured, figures
    )


def main() -> int:
    parser = program.parser(__doc__)
    parser.add_argument("--models", type=int, help="default: 20,000, quick 2,000")
    parser.add_argument("--requests", type=int, help="of a trace; default: 400,000, quick 20,000")
    return program.main("eviction", parser, run)


if __name__ == "__main__":
    sys.exit(main())
