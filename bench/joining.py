"""What joining requests is worth, and what watching it costs: one worker alone, without clients.

Sixteen callers ask each model in three ways, which take turns: as it is joined by default, with
`batching: false`, and joined without the watch. Figures are medians over the rounds; time is CPU
time of the whole process, of one thread for each run. The model that is too quick to be joined
shows what the checks cost where joining is worth nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import solo, tiny
from meshserve.core.values import catalog, catalog_sync, model
from meshserve.protocol import inference
from meshserve.worker.models import joining

CALLERS = 16
WAYS = ("joined", "alone", "unwatched")
UNWATCHED_RUNS = 1 << 30
"""Joined runs between two that are watched, in the way without the watch."""


@dataclass(frozen=True)
class Case:
    """A model: its name, its file, its inputs if the file does not say them, and one row."""

    name: str
    path: Path
    row: np.ndarray
    inputs: tuple[model.TensorSpec, ...] = ()


@dataclass(frozen=True)
class Round:
    """What one round of a way showed: requests a second, and CPU time of one in µs."""

    requests_per_s: float
    cpu_us: float


def cases(folder: Path) -> Iterator[Case]:
    """Write the models: a tiny and a wide one of ONNX, and a deep network of torch."""
    for name, hidden in (("tiny onnx", tiny.HIDDEN), ("wide onnx, 8 MB", 100_000)):
        path = folder / f"{hidden}.onnx"
        tiny.write(path, 0, hidden)
        yield Case(name, path, np.ones((1, tiny.INPUTS), np.float32))
    layers = [torch.nn.Linear(256, 256) for _ in range(64)]
    network = torch.nn.Sequential(torch.nn.Linear(16, 256), *layers, torch.nn.Linear(256, 4))
    path = folder / "network.pt"
    torch.jit.trace(network.eval(), torch.zeros(2, 16)).save(str(path))
    declared = (model.TensorSpec("x", "FP32", (-1, 16)),)
    yield Case("torch, 66 layers", path, np.ones((1, 16), np.float32), declared)


def summarise(rounds: dict[str, list[Round]]) -> dict[str, Round]:
    """Return the median round of each way."""
    return {
        way: Round(
            statistics.median(measured.requests_per_s for measured in seen),
            statistics.median(measured.cpu_us for measured in seen),
        )
        for way, seen in rounds.items()
    }


def line(name: str, state: str, medians: dict[str, Round]) -> str:
    """Return a model's figures as a line of text."""
    joined, alone, unwatched = (medians[way] for way in WAYS)
    return (
        f"{name:18} {state:9} requests/s {joined.requests_per_s:8,.0f} joined, "
        f"{alone.requests_per_s:8,.0f} alone ({joined.requests_per_s / alone.requests_per_s:.2f}x);"
        f" CPU of one {joined.cpu_us:7,.1f} µs joined, {alone.cpu_us:7,.1f} alone; "
        f"the watch takes {100 * (joined.cpu_us / unwatched.cpu_us - 1):+.1f} %"
    )


async def ask(host: Any, name: str, row: np.ndarray, count: int) -> None:
    """Send a row of shape [1, 16] so many times, one after the other."""
    tensors = {"x": inference.WireTensor("FP32", row)}
    call = inference.InferCall(name, "", "", tensors)
    expires_s = asyncio.get_running_loop().time() + 600
    for _ in range(count):
        outcome = host.infer(call, expires_s)
        if isinstance(outcome, Awaitable):
            await outcome
        else:
            # Callers take turns, as requests of several clients do.
            await asyncio.sleep(0)


async def run_round(host: Any, name: str, row: np.ndarray, requests: int) -> Round:
    """Let all callers send a row of shape [1, 16] to one model; return their figures."""
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    per_caller = requests // CALLERS
    await asyncio.gather(*(ask(host, name, row, per_caller) for _ in range(CALLERS)))
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
    return Round(per_caller * CALLERS / took_s, cpu_s / (per_caller * CALLERS) * 1e6)


async def measure(host: Any, case: Case, rounds: int, requests: int) -> str:
    """Return a line of figures of one model, which the host knows in each way's name."""
    seen: dict[str, list[Round]] = {way: [] for way in WAYS}
    every = joining.SAMPLED_EVERY
    for number in range(rounds + 1):
        for way in WAYS:
            # The first joined runs are past after the first round, which does not count.
            joining.SAMPLED_EVERY = UNWATCHED_RUNS if way == "unwatched" else every
            measured = await run_round(host, f"{case.name}-{way}", case.row, requests)
            if number:
                seen[way].append(measured)
    joining.SAMPLED_EVERY = every
    key = host.residency.find_ready(model.ModelId(f"{case.name}-joined"))
    return line(case.name, host.find_resident(key).batcher.joining.state.value, summarise(seen))


async def run(folder: Path, rounds: int, seconds: float) -> None:
    """Measure all models, and print a line for each."""
    async with solo.serving(folder, []) as pool_worker:
        host, drawn = pool_worker.host, list(cases(folder))
        specs = [
            model.ModelSpec(
                model.ModelId(f"{case.name}-{way}"),
                str(case.path),
                inputs=case.inputs,
                batching=False if way == "alone" else None,
            )
            for case in drawn
            for way in WAYS
        ]
        changes = tuple(catalog.ModelDeclared(spec) for spec in specs)
        step = catalog_sync.SyncStep(host.catalog_follower.revision + 1, changes)
        pool_worker.apply(step)
        for case in drawn:
            for way in WAYS:
                # A proof begins when requests wait, and ends before the figures are taken.
                await run_round(host, f"{case.name}-{way}", case.row, 20 * CALLERS)
            await asyncio.sleep(1.0)
            trial = await run_round(host, f"{case.name}-alone", case.row, 20 * CALLERS)
            requests = max(20 * CALLERS, int(seconds * trial.requests_per_s))
            print(await measure(host, case, rounds, requests), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each way")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long a round takes")
    arguments = parser.parse_args()
    solo.be_a_worker()
    with tempfile.TemporaryDirectory(prefix="j-", dir="/tmp") as folder:
        asyncio.run(run(Path(folder), arguments.rounds, arguments.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
