"""Compare placements that Envoy offers: what moves when a pool grows by one worker.

Each placement is a function of the workers' number that returns each model's worker. Measured are,
at each step, the models that moved against the ideal (each of n + 1 workers gets an equal part, and
nothing else moves), and the bytes of the busiest worker against the mean.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xxhash
from rich.console import Console

from bench import program, results, traces
from meshserve.core.processes import hash_ring

MAGLEV_SIZE = 65_537
"""The size of Envoy's Maglev tables, by default."""

STEPS = (10, 32, 100, 128, 500, 999)
"""The numbers of workers before each measured step."""

MOVED_MAX, BYTES_MAX = 1.2, 1.25

Placement = Callable[[int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Step:
    """Growth by one worker: models moved against the ideal, and the busiest worker's bytes."""

    workers: int
    moved: float
    bytes: float


def steps(
    placement: Placement, hashes: np.ndarray, sizes: np.ndarray, before: Iterable[int]
) -> list[Step]:
    """Return what each step moves. `hashes` and `sizes` of models have shape (models,)."""
    done = []
    for workers in before:
        old, new = placement(workers, hashes), placement(workers + 1, hashes)
        loads = np.bincount(new, weights=sizes, minlength=workers + 1)
        done.append(
            Step(
                workers,
                float((old != new).mean()) * (workers + 1),
                float(loads.max() / loads.mean()),
            )
        )
    return done


def our_steps(models: int, sizes: np.ndarray, workers: int) -> list[Step]:
    """Return what our placement moves up to so many workers; `sizes` has shape (models,)."""
    ours = constant_points(hash_ring.POINTS_PER_WORKER)
    return steps(ours, model_hashes(models), sizes, [step for step in STEPS if step < workers])


def model_hashes(models: int) -> np.ndarray:
    """Return the models' hashes, of type uint64 and shape (models,)."""
    names = (f"model-{number:07d}".encode() for number in range(models))
    return np.fromiter((xxhash.xxh64_intdigest(name) for name in names), np.uint64, models)


@functools.lru_cache(maxsize=2048)
def _points(worker: int, count: int) -> np.ndarray:
    """Return the hashes of a worker's points, shape (count,)."""
    names = (f"default-{worker}_{number}".encode() for number in range(count))
    return np.fromiter((xxhash.xxh64_intdigest(name) for name in names), np.uint64, count)


def constant_points(count: int) -> Placement:
    """Return a ring on which each worker has `count` points; ours has `POINTS_PER_WORKER`."""

    def place(workers: int, hashes: np.ndarray) -> np.ndarray:
        """Return each model's worker; both arrays have shape (models,)."""
        points = np.concatenate([_points(worker, count) for worker in range(workers)])
        order = np.argsort(points, kind="stable")
        return (order // count)[np.searchsorted(points[order], hashes) % len(order)]

    return place


def constant_ring(size: int) -> Placement:
    """Return a ring of `size` points at least, of which each worker has an equal number."""
    return lambda workers, hashes: constant_points(math.ceil(size / workers))(workers, hashes)


def growing_ring(workers: int, hashes: np.ndarray) -> np.ndarray:
    """Return each model's worker on a ring of 16,384 points up to 128 workers, then of 262,144.

    Hashes and workers have shape (models,).
    """
    return constant_ring(16_384 if workers <= 128 else 262_144)(workers, hashes)


def maglev(workers: int, hashes: np.ndarray) -> np.ndarray:
    """Return each model's worker by a Maglev table, shape (models,), as `hashes` have.

    Section 3.4 of the paper, as Envoy's `maglev_lb.cc` follows it.
    """
    names = [f"default-{worker}".encode() for worker in range(workers)]
    offsets = [xxhash.xxh64_intdigest(name) % MAGLEV_SIZE for name in names]
    skips = [xxhash.xxh64_intdigest(name, 1) % (MAGLEV_SIZE - 1) + 1 for name in names]
    table, places, filled = [-1] * MAGLEV_SIZE, offsets, 0
    while filled < MAGLEV_SIZE:
        for worker in range(min(workers, MAGLEV_SIZE - filled)):
            place = places[worker]
            while table[place] >= 0:
                place = (place + skips[worker]) % MAGLEV_SIZE
            table[place], filled = worker, filled + 1
            places[worker] = (place + skips[worker]) % MAGLEV_SIZE
    return np.array(table)[hashes % np.uint64(MAGLEV_SIZE)]


PLACEMENTS: dict[str, Placement] = {
    "ring of 262,144 points": constant_ring(262_144),
    "ring of 16,384, then 262,144 points": growing_ring,
    "Maglev, table of 65,537": maglev,
    "256 points a worker": constant_points(256),
    "512 points a worker": constant_points(hash_ring.POINTS_PER_WORKER),
    "1,024 points a worker": constant_points(1024),
}


def goals(steps_done: Iterable[Step]) -> tuple[results.Claim, ...]:
    """Return the goals of the placement that is used."""
    done = list(steps_done)
    return (
        results.at_most(
            "models moved by one more worker, × the ideal, worst step",
            max(step.moved for step in done),
            "",
            MOVED_MAX,
        ),
        results.at_most(
            "busiest worker's bytes, × the mean, worst step",
            max(step.bytes for step in done),
            "",
            BYTES_MAX,
        ),
    )


def run(_console: Console, args: argparse.Namespace, _folder: Path) -> results.Results:
    models = args.models or (100_000 if args.quick else 1_000_000)
    hashes, sizes = model_hashes(models), traces.models(models).bytes.astype(float)
    before = STEPS[:4] if args.quick else STEPS
    by_placement = {what: steps(place, hashes, sizes, before) for what, place in PLACEMENTS.items()}
    rows = tuple(
        (what, *(f"{step.moved:.2f} / {step.bytes:.2f}" for step in done))
        for what, done in by_placement.items()
    )
    columns = ("placement", *(f"{workers} → {workers + 1}" for workers in before))
    table = results.Table("models moved × the ideal / busiest worker's bytes", columns, rows)
    ours = by_placement["512 points a worker"]
    figures = {what: [asdict(step) for step in done] for what, done in by_placement.items()}
    return results.Results(1, {"models": models}, goals(ours), (table,), figures=figures)


def main() -> int:
    parser = program.parser(__doc__)
    parser.add_argument("--models", type=int, help="default: 1,000,000, quick 100,000")
    return program.main("growth", parser, run)


if __name__ == "__main__":
    sys.exit(main())
