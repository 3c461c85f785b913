"""Many more models than fit: thousands of tiny ONNX models in a repository, memory for a fifth of them, random traffic.

Every answer is held against the same sum in numpy. A request counts as cold when it is the first for its model, or when so many other
models were asked since the last one that its copy must have been evicted; as warm when so few were that it can't have been.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import meshes
import numpy as np
import served
import tiny
from rich import box
from rich.console import Console
from rich.table import Table

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc

X = np.linspace(-1, 1, tiny.INPUTS, dtype=np.float32)[None]
RAW_X = X.tobytes()


@dataclass(frozen=True)
class Asked:
    """One request: which model, when it was sent (order), how long it took, and what was wrong with the answer, if anything."""

    model: int
    took_ms: float
    fault: str


def name(number: int) -> str:
    return f"tiny-{number:05d}"


def write_repository(folder: Path, count: int) -> None:
    """`name/1/model.onnx`: Triton's layout."""
    for number in range(count):
        tiny.write(folder / name(number) / "1" / "model.onnx", number)


def status(endpoint: str) -> dict[str, Any]:
    answer = httpx.get(f"http://{endpoint}/mesh/v1/status", timeout=30).raise_for_status().json()
    return dict(answer)


def registered(endpoint: str) -> int:
    try:
        return int(status(endpoint)["models"]["registered"])
    except httpx.HTTPError:
        return 0


def totals(endpoint: str) -> dict[str, int]:
    """Counters of all workers together."""
    workers = [worker for pool in status(endpoint)["pools"] for worker in pool["workers"]]
    return {key: sum(worker[key] for worker in workers) for key in ("resident", "hits", "misses", "loads", "load_failures", "evictions")}


async def ask(stub: Any, number: int, expected: np.ndarray) -> Asked:
    request = pb.ModelInferRequest(model_name=name(number), raw_input_contents=[RAW_X])
    request.inputs.add(name="x", datatype="FP32", shape=X.shape)
    started_s = time.perf_counter()
    try:
        answer = await stub.ModelInfer(request, timeout=30)
    except grpc.RpcError as failure:
        return Asked(number, (time.perf_counter() - started_s) * 1e3, f"{failure.code().name}: {failure.details()}")
    took_ms = (time.perf_counter() - started_s) * 1e3
    y = np.frombuffer(answer.raw_output_contents[0], np.float32)
    return Asked(number, took_ms, "" if np.allclose(y, expected, rtol=1e-4, atol=1e-5) else "wrong answer")


async def traffic(endpoint: str, count: int, seconds: float, in_flight: int) -> list[Asked]:
    """Uniformly random models, `in_flight` requests at a time, in the order of their answers."""
    expected = [tiny.answer(number, X)[0] for number in range(count)]
    asked: list[Asked] = []
    end_s = time.monotonic() + seconds

    async def caller(stub: Any, seed: int) -> None:
        chance = np.random.default_rng(seed)
        while time.monotonic() < end_s:
            number = int(chance.integers(count))
            asked.append(await ask(stub, number, expected[number]))

    async with grpc.aio.insecure_channel(endpoint) as channel, asyncio.TaskGroup() as callers:
        stub = rpc.GRPCInferenceServiceStub(channel)
        for seed in range(in_flight):
            callers.create_task(caller(stub, seed))
    return asked


def reuse_distances(models: Sequence[int]) -> list[int]:
    """For each request, how many other models were asked since the last request for the same one; -1 for a first request.

    A Fenwick tree over the requests marks each model's latest one: what is marked after a place was asked since.
    """
    tree, latest, distances = np.zeros(len(models) + 1, np.int64), {}, []

    def add(place: int, amount: int) -> None:
        while place < len(tree):
            tree[place] += amount
            place += place & -place

    def before(place: int) -> int:
        total = 0
        while place:
            total += int(tree[place])
            place -= place & -place
        return total

    for place, model in enumerate(models, start=1):
        last = latest.get(model)
        distances.append(-1 if last is None else len(latest) - before(last))
        if last is not None:
            add(last, -1)
        add(place, 1)
        latest[model] = place
    return distances


def kinds(asked: list[Asked], resident: int) -> dict[str, np.ndarray]:
    """Milliseconds of all requests, and of those whose copy was certainly there or certainly not."""
    took_ms = np.array([each.took_ms for each in asked])
    distances = np.array(reuse_distances([each.model for each in asked]))
    return {
        "all": took_ms,
        "warm: resident": took_ms[(distances >= 0) & (distances < resident // 2)],
        "cold: evicted before": took_ms[distances > 2 * resident],
        "cold: first request": took_ms[distances < 0],
    }


def report(console: Console, asked: list[Asked], counters: dict[str, int], count: int, seconds: float) -> None:
    drawn = Table(title=f"{len(asked) / seconds:,.0f} req/s to {count:,} models, {counters['resident']:,} resident", box=box.SIMPLE)
    drawn.add_column("requests")
    for heading in ("number", "p50 ms", "p99 ms", "max ms"):
        drawn.add_column(heading, justify="right")
    for kind, took_ms in kinds(asked, counters["resident"]).items():
        figures = [f"{float(f):.1f}" for f in np.percentile(took_ms, [50, 99, 100])] if len(took_ms) else ["-"] * 3
        drawn.add_row(kind, f"{len(took_ms):,}", *figures)
    console.print(drawn)
    console.print("  ".join(f"{key} {value:,}" for key, value in counters.items()), highlight=False)


def run(console: Console, args: argparse.Namespace, folder: Path) -> int:
    """The number of requests without a right answer."""
    console.print(f"writing {args.models:,} models …")
    write_repository(folder / "models", args.models)
    with meshes.up(folder, meshes.pool(args.workers, args.memory), repositories=[{"path": str(folder / "models")}]) as mesh:
        started_s = time.monotonic()
        mesh.system.wait_until(lambda: registered(mesh.endpoint) >= args.models, 300)
        console.print(f"{args.models:,} models registered {time.monotonic() - started_s:.1f} s after the start", highlight=False)
        asked = asyncio.run(traffic(mesh.endpoint, args.models, args.seconds, args.in_flight))
        report(console, asked, totals(mesh.endpoint), args.models, args.seconds)
    faults = [each for each in asked if each.fault]
    console.print(f"errors: {len(faults)}")
    for each in faults[:5]:
        console.print(f"  {name(each.model)}: {each.fault}", markup=False)
    return len(faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=5_000)
    parser.add_argument("--memory", default="170MiB", help="per worker: its own 100 MiB, and room for about 500 tiny models")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--in-flight", type=int, default=8)
    args = parser.parse_args()
    console = Console(soft_wrap=True)
    served.end_by_signals()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return int(run(console, args, Path(folder)) > 0)
        except served.NotServing as failure:
            console.print(f"many: {failure}", markup=False)
            return 1
        except KeyboardInterrupt:
            console.print("stopped")
            return 130


if __name__ == "__main__":
    sys.exit(main())
