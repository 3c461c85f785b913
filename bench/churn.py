"""Load and unload thousands of models in one real worker, and watch memory, files and threads.

It runs in this process and without Ray. For each library in turn the same few models are loaded and
unloaded. Before each batch free pages are given back to the kernel, and private memory, open files
and threads are read. Drift is the median of the last tenth against that of the first tenth after
warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from bench import program, results, samples, solo, tiny
from meshserve.core.values import model
from meshserve.worker import worker
from meshserve.worker.models import allocators, process_memory

DRIFT_MAX, QUICK_DRIFT_MAX = 0.01, 0.05
# Thread pools may still fill up in a short run.
QUICK_THREADS_MAX = 8
MODELS = 20
WARM_UP_SHARE = 0.1
BATCHES = 100
# How many times fewer loads a library gets than ONNX Runtime: its loads take longer.
SHARES = {"sklearn": 10, "xgboost": 10, "lightgbm": 10, "python": 10, "torch": 100}


@dataclass(frozen=True)
class Reading:
    """What the process uses at one moment."""

    private_bytes: int
    files: int
    threads: int


@dataclass(frozen=True)
class Churned:
    """The figures of one library. `drift` is a share of the memory after warm-up."""

    loads: int
    loads_per_s: float
    before: Reading
    after: Reading

    @property
    def drift(self) -> float:
        """The growth of memory as a share."""
        return (self.after.private_bytes - self.before.private_bytes) / self.before.private_bytes


def read() -> Reading:
    """Give back all that can be given back, then read."""
    gc.collect()
    allocators.current().trim()
    return Reading(
        process_memory.private_bytes(),
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
    )


def middle(readings: list[Reading]) -> Reading:
    """Return the medians."""
    return Reading(
        *(
            int(statistics.median(values))
            for values in zip(*(asdict(reading).values() for reading in readings), strict=True)
        )
    )


def drifted(readings: list[Reading]) -> tuple[Reading, Reading]:
    """Return the first tenth after warm-up, and the last tenth."""
    steady = readings[int(len(readings) * WARM_UP_SHARE) :]
    tenth = max(1, len(steady) // 10)
    return middle(steady[:tenth]), middle(steady[-tenth:])


async def churn(
    pool_worker: worker.PoolWorker,
    ids: list[model.ModelId],
    loads: int,
    tell: Callable[[str], None],
) -> Churned:
    """Load and unload one model after another."""
    readings, spent_s, batch = [read()], 0.0, max(1, loads // BATCHES)
    turns = itertools.islice(itertools.cycle(ids), loads)
    while part := list(itertools.islice(turns, batch)):
        began_s = time.perf_counter()
        for id_ in part:
            await pool_worker.ensure_loaded(id_, timeout_s=120)
            pool_worker.host.unload(id_)
            while pool_worker.host.footprint(id_).host_bytes:  # noqa: ASYNC110 - nothing tells of a copy's end
                await asyncio.sleep(0)
        spent_s += time.perf_counter() - began_s
        readings.append(read())
        if len(readings) % (BATCHES // 4) == 0:
            tell(
                f"{len(readings) * batch:,} loads, "
                f"{readings[-1].private_bytes / 2**20:.1f} MiB private"
            )
    return Churned(loads, loads / spent_s, *drifted(readings))


def tiny_models(folder: Path) -> Iterator[solo.Entry]:
    """Write ONNX models that differ."""
    for number in range(MODELS):
        path = folder / f"tiny-{number}.onnx"
        tiny.write(path, number)
        yield solo.Entry(path.stem, path)


def sample_models(folder: Path) -> Iterator[tuple[str, solo.Entry]]:
    """Train one of the demo's models for each library but ONNX Runtime.

    It happens in another process, as for a worker.
    """
    wanted = [sample for sample in samples.SAMPLES if sample.runtime in SHARES]
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        for sample, entry in zip(
            wanted, apart.map(sample_model, itertools.repeat(folder), wanted), strict=False
        ):
            yield sample.runtime, entry


def sample_model(folder: Path, sample: samples.Sample) -> solo.Entry:
    """Train the model and write it to the disk."""
    path = folder / sample.name / sample.path
    path.parent.mkdir(parents=True)
    sample.train(sample.rows(), path)
    return solo.Entry(
        sample.name, path.parent if sample.runtime == "python" else path, sample.runtime
    )


async def run_all(console: Console, args: argparse.Namespace, folder: Path) -> dict[str, Churned]:
    """Run every library, each through the same worker."""
    churned: dict[str, Churned] = {}
    by_runtime = {"onnx": list(tiny_models(folder))}
    if not args.quick:
        by_runtime |= {runtime: [entry] for runtime, entry in sample_models(folder)}
    async with solo.serving(
        folder, [entry for entries in by_runtime.values() for entry in entries]
    ) as pool_worker:
        for runtime, entries in by_runtime.items():
            console.print(runtime)
            loads = args.loads // SHARES.get(runtime, 1)
            ids = [model.ModelId(entry.name) for entry in entries]
            churned[runtime] = await churn(
                pool_worker, ids, loads, lambda said: console.print(f"  {said}", highlight=False)
            )
    return churned


def summarise(churned: dict[str, Churned], *, is_quick: bool) -> results.Results:
    """Return the table and the goals."""
    rows = tuple((runtime, *_cells(result)) for runtime, result in churned.items())
    head = (
        "library",
        "loads",
        "loads/s",
        "MiB before",
        "MiB after",
        "drift %",
        "files +",
        "threads +",
    )
    onnx = churned["onnx"]
    bound = QUICK_DRIFT_MAX if is_quick else DRIFT_MAX
    claims = (
        results.at_most(
            f"memory drift over {onnx.loads:,} loads and unloads",
            max(0.0, onnx.drift) * 100,
            "%",
            bound * 100,
        ),
        results.at_most(
            "open files more at the end", max(0, onnx.after.files - onnx.before.files), "", 0
        ),
        results.at_most(
            "threads more at the end",
            max(0, onnx.after.threads - onnx.before.threads),
            "",
            QUICK_THREADS_MAX * is_quick,
        ),
    )
    figures = {runtime: asdict(result) for runtime, result in churned.items()}
    table = results.Table("loads and unloads through one worker, without Ray", head, rows)
    return results.Results(
        1, {"loads": onnx.loads, "models": MODELS}, claims, (table,), figures=figures
    )


def _cells(result: Churned) -> tuple[str, ...]:
    before, after = result.before, result.after
    mib = (before.private_bytes / 2**20, after.private_bytes / 2**20)
    figures = (
        result.loads,
        result.loads_per_s,
        *mib,
        result.drift * 100,
        after.files - before.files,
        after.threads - before.threads,
    )
    return tuple(results.figure(float(figure)) for figure in figures)


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    args.loads = args.loads or (1_000 if args.quick else 10_000)
    return summarise(asyncio.run(run_all(console, args, folder)), is_quick=args.quick)


def main() -> int:
    solo.be_a_worker()
    parser = program.parser(__doc__)
    parser.add_argument("--loads", type=int, help="of ONNX models; default: 10,000, quick 1,000")
    return program.main("churn", parser, run)


if __name__ == "__main__":
    sys.exit(main())
