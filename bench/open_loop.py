"""Send requests to random ones of tens of thousands of tiny models at a fixed rate.

Every model is asked once to warm up. Then a request's time counts from when it was due, so that a
stall counts for all who wait. Every answer is compared with the same sum in numpy. The callers are
Python's grpc.aio in this process, and take their share of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import meshes, program, results, traffic

P99_MS_MAX = 10.0
# A request's median beside that of first ones, which wait for a load, in the quick version.
QUICK_RATIO = 0.3
WARM_UP_IN_FLIGHT = 8
REGISTER_S_MAX = 600


async def load(
    console: Console, args: argparse.Namespace, endpoint: str
) -> tuple[list[traffic.Asked], list[traffic.Asked]]:
    """Run the warm-up and the load that counts."""
    chance, requests = np.random.default_rng(0), int(args.rate * args.seconds)
    async with traffic.callers(endpoint, args.models) as callers:
        began_s = time.monotonic()
        warm_up = await callers.each(range(args.models), WARM_UP_IN_FLIGHT)
        console.print(f"asked each once in {time.monotonic() - began_s:.0f} s", highlight=False)
        await callers.open(chance.integers(args.models, size=int(args.rate)).tolist(), args.rate)
        return warm_up, await callers.open(
            chance.integers(args.models, size=requests).tolist(), args.rate
        )


def summarise(
    args: argparse.Namespace,
    warm_up: list[traffic.Asked],
    asked: list[traffic.Asked],
    seconds: float,
) -> results.Results:
    """Return the table and the goal. Raises WrongAnswer if an answer was wrong."""
    faults = traffic.failures([*warm_up, *asked])
    if faults:
        raise program.WrongAnswer(f"{len(faults)} requests failed, the first: {faults[0]}")
    rows = (
        ("warm-up, each for the first time", *_cells(warm_up)),
        (f"{args.rate:,.0f} req/s", *_cells(asked)),
    )
    head = ("requests", "number", "p50 ms", "p99 ms", "p99.9 ms", "max ms")
    sizes = {key: getattr(args, key) for key in ("models", "rate", "seconds", "workers", "memory")}
    table = results.Table(
        f"open loop to {args.models:,} models, registered after {seconds:.0f} s", head, rows
    )
    return results.Results(1, sizes, (claim(args, warm_up, asked),), (table,))


def claim(
    args: argparse.Namespace, warm_up: list[traffic.Asked], asked: list[traffic.Asked]
) -> results.Claim:
    """Return the goal; in the quick version, a floor beside first requests of the same run."""
    title = f"at {args.rate:,.0f} req/s to {args.models:,} models, open loop"
    if args.quick:
        first_ms, took_ms = (
            float(np.median([request.took_ms for request in several]))
            for several in (warm_up, asked)
        )
        return results.times_at_most(
            f"p50 {title}", "ms", took_ms, ("first requests", first_ms), QUICK_RATIO
        )
    return results.at_most(
        f"p99 {title}",
        float(np.percentile([request.took_ms for request in asked], 99)),
        "ms",
        P99_MS_MAX,
    )


def _cells(asked: list[traffic.Asked]) -> tuple[str, ...]:
    percentiles = np.percentile([request.took_ms for request in asked], [50, 99, 99.9, 100])
    return (f"{len(asked):,}", *(results.figure(float(percentile)) for percentile in percentiles))


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    args.models = args.models or (500 if args.quick else 20_000)
    args.rate = args.rate or (200.0 if args.quick else 1_000.0)
    args.seconds = args.seconds or (4.0 if args.quick else 60.0)
    console.print(f"writing {args.models:,} models", highlight=False)
    traffic.write_repository(folder / "models", args.models)
    repository = [{"path": str(folder / "models"), "watch": False}]
    with meshes.up(folder, meshes.pool(args.workers, args.memory), repositories=repository) as mesh:
        began_s = time.monotonic()
        mesh.system.wait_until(
            lambda: meshes.registered(mesh.endpoint) >= args.models, REGISTER_S_MAX
        )
        mesh.system.wait_until(lambda: meshes.is_ready(mesh.endpoint), REGISTER_S_MAX)
        registered_s = time.monotonic() - began_s
        console.print(f"registered {registered_s:.0f} s after the start", highlight=False)
        warm_up, asked = asyncio.run(load(console, args, mesh.endpoint))
        console.print(
            "  ".join(f"{key} {value:,}" for key, value in meshes.totals(mesh.endpoint).items()),
            highlight=False,
        )
    return summarise(args, warm_up, asked, registered_s)


def main() -> int:
    parser = program.parser(__doc__)
    parser.add_argument("--models", type=int, help="default: 20,000, quick 500")
    parser.add_argument("--rate", type=float, help="requests a second; default: 1,000, quick 200")
    parser.add_argument("--seconds", type=float, help="default: 60, quick 4")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", default="4GiB", help="per worker")
    return program.main("open_loop", parser, run)


if __name__ == "__main__":
    sys.exit(main())
