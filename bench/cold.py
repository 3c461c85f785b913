"""Measure a request for a model that is not in memory, by its size and its artifact's place.

Everything goes through a whole mesh with one worker. An evicted model's artifact is in the page
cache, or on the disk after its pages were dropped. A model's first request finds it in a local
folder, or in an S3 bucket on this machine. Beside each stands the same file loaded and run by ONNX
Runtime in this process. Then 500 callers ask for one cold model at once, and random requests go to
four times as many models as fit.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from rich.console import Console

from bench import buckets, cold_tables, meshes, pages, program, results, thrash, tiny
from bench.peers import sessions
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc

X = np.linspace(-1, 1, tiny.INPUTS, dtype=np.float32)[None]
SIZES = {"5.6 KB": 0, "10 MB": 10 << 20, "100 MB": 100 << 20}
FIRST_SEEDS = {"local": 1, "rush": 10_001, "s3": 20_001}
CALL_S_MAX, READY_S_MAX, GONE_S_MAX = 120, 180, 30

Rushed = list[cold_tables.Stampede]


@dataclass(frozen=True)
class Plan:
    """How often each size is measured, and how many call at once."""

    evicted: dict[str, int]
    first: dict[str, int]
    callers: int
    thrash: thrash.Plan


WHOLE = Plan(
    {"5.6 KB": 300, "10 MB": 40, "100 MB": 10},
    {"5.6 KB": 60, "10 MB": 10, "100 MB": 3},
    500,
    thrash.WHOLE,
)
QUICK = Plan({"5.6 KB": 40}, {"5.6 KB": 10}, 200, thrash.QUICK)


@dataclass(frozen=True)
class Sample:
    """One model: its name, number, size and file."""

    name: str
    seed: int
    size: str
    path: Path

    @property
    def hidden(self) -> int:
        """The width of the model's middle layer."""
        return tiny.hidden_for(SIZES[self.size])


@dataclass
class Taken:
    """Milliseconds by place and size, in the order in which they were measured."""

    took_ms: dict[tuple[str, str], list[float]] = field(
        default_factory=lambda: collections.defaultdict(list)
    )
    in_process_ms: dict[str, float] = field(default_factory=dict)


def write_samples(folder: Path, kind: str, counts: dict[str, int]) -> list[Sample]:
    """Write models of each size, all different: equal bytes would be one copy."""
    samples, seeds = [], itertools.count(FIRST_SEEDS[kind])
    for size, count in counts.items():
        for number in range(count):
            seed = next(seeds)
            path = folder / kind / f"{kind}-{size.replace(' ', '').lower()}-{number}.onnx"
            sample = Sample(path.stem, seed, size, path)
            tiny.write(path, seed, sample.hidden)
            samples.append(sample)
    return samples


class Asking:
    """One caller of the mesh with one request in flight."""

    def __init__(self, mesh: meshes.Mesh) -> None:
        self.mesh = mesh
        self._channel = grpc.insecure_channel(mesh.endpoint)
        self._stub = rpc.GRPCInferenceServiceStub(self._channel)
        self._http = httpx.Client(base_url=f"http://{mesh.endpoint}/mesh/v1/models", timeout=60)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
        self._http.close()

    def took_ms(self, sample: Sample, expected: np.ndarray) -> float:
        """Return the milliseconds of one prediction of one FP32 row. Raises WrongAnswer."""
        asked = request(sample.name)
        began_s = time.perf_counter()
        answer = self._stub.ModelInfer(asked, timeout=CALL_S_MAX)
        took_ms = (time.perf_counter() - began_s) * 1e3
        check_answer(answer, expected, sample.name)
        return took_ms

    def evict(self, sample: Sample) -> None:
        """Have the copy evicted, and wait until it is."""
        self._http.post(f"/{sample.name}/unload").raise_for_status()
        self.mesh.system.wait_until(
            lambda: self._http.get(f"/{sample.name}").json()["state"] == "absent", GONE_S_MAX
        )


def request(model: str) -> Any:
    """Return the call for the one row."""
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[X.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=X.shape)
    return request


def check_answer(answer: Any, expected: np.ndarray, model: str) -> None:
    """Compare an answer of shape (1, 4) with the right one. Raises WrongAnswer."""
    if not np.allclose(
        np.frombuffer(answer.raw_output_contents[0], np.float32), expected, rtol=1e-3, atol=1e-2
    ):
        raise program.WrongAnswer(f"a wrong answer of {model}")


def expected_answer(sample: Sample) -> np.ndarray:
    """Return the right answer, FP32 of shape (1, 4)."""
    return tiny.answer(sample.seed, X, sample.hidden)[0]


def in_process_ms(sample: Sample, times: int) -> float:
    """Return the median time of ONNX Runtime with the same file in this process."""
    took_ms = []
    for _ in range(times):
        began_s = time.perf_counter()
        sessions.load(str(sample.path)).run(None, {"x": X})
        took_ms.append((time.perf_counter() - began_s) * 1e3)
    return float(np.median(took_ms))


def ask_first(asking: Asking, samples: list[Sample], place: str, taken: Taken) -> None:
    """Ask for models that were never asked for."""
    for sample in samples:
        taken.took_ms[place, sample.size].append(asking.took_ms(sample, expected_answer(sample)))


def ask_evicted(
    asking: Asking,
    samples: list[Sample],
    plan: Plan,
    place: str,
    taken: Taken,
    prepare: Callable[[Sample], None],
) -> None:
    """Ask in turn for models that were evicted.

    `prepare` moves a model's artifact to the place that is measured.
    """
    for size, times in plan.evicted.items():
        several = [(sample, expected_answer(sample)) for sample in samples if sample.size == size]
        for sample, answer in itertools.islice(itertools.cycle(several), times):
            asking.evict(sample)
            prepare(sample)
            taken.took_ms[place, size].append(asking.took_ms(sample, answer))


def checked_drop(cache: Path, sample: Sample) -> None:
    """Drop the artifact's pages, of its source and in the cache. Raises WrongAnswer if they stay.

    Only those: writing and dropping hundreds of files before each request takes so long that
    everything else gets cold too.
    """
    paths = [sample.path, *cache.rglob(sample.path.name)]
    for path in paths:
        pages.drop(path)
    kept = [path for path in paths if pages.cached_share(path) > 0.5]
    if kept:
        raise program.WrongAnswer(
            f"the kernel keeps the pages of {kept[0]}: it can't be measured from the disk"
        )


async def run_stampede(endpoint: str, sample: Sample, callers: int) -> list[float]:
    """Have many callers ask for one cold model at once; return milliseconds for each.

    Raises WrongAnswer, or the error of a call.
    """
    answer, took_ms = expected_answer(sample), []

    async def call(stub: Any) -> None:
        began_s = time.perf_counter()
        check_answer(
            await stub.ModelInfer(request(sample.name), timeout=CALL_S_MAX), answer, sample.name
        )
        took_ms.append((time.perf_counter() - began_s) * 1e3)

    async with grpc.aio.insecure_channel(endpoint) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(call(stub))
    return took_ms


def run_stampedes(
    asking: Asking, samples: list[Sample], callers: int
) -> Iterator[cold_tables.Stampede]:
    """Run one stampede for each size, and count the worker's loads meanwhile."""
    before = meshes.settled_totals(asking.mesh)
    for sample in samples:
        took_ms = asyncio.run(run_stampede(asking.mesh.endpoint, sample, callers))
        after = meshes.settled_totals(asking.mesh, before["requests"] + callers)
        yield cold_tables.Stampede(
            sample.size,
            callers,
            after["loads"] - before["loads"],
            after["failures"] - before["failures"],
            took_ms,
        )
        before = after


def measure(console: Console, plan: Plan, folder: Path) -> tuple[Taken, Rushed]:
    """Measure everything but the thrash in one mesh."""
    taken = Taken()
    local, once = (
        write_samples(folder, "local", plan.first),
        write_samples(folder, "rush", dict.fromkeys(plan.evicted, 1)),
    )
    distant = write_samples(folder, "s3", plan.first)
    with buckets.serving(folder) as bucket:
        entries = [{"name": sample.name, "uri": str(sample.path)} for sample in (*local, *once)]
        entries += [{"name": sample.name, "uri": bucket.put(sample.path)} for sample in distant]
        with meshes.up(folder, meshes.pool(1, "2GiB"), bucket.variables, models=entries) as mesh:
            mesh.system.wait_until(lambda: meshes.is_ready(mesh.endpoint), READY_S_MAX)
            asking = Asking(mesh)
            try:
                rushed = _measure_all(console, plan, asking, (local, once, distant), taken, folder)
            finally:
                asking.close()
    return taken, rushed


def _measure_all(
    console: Console,
    plan: Plan,
    asking: Asking,
    samples: tuple[list[Sample], ...],
    taken: Taken,
    folder: Path,
) -> Rushed:
    local, once, distant = samples
    cache = folder / "state" / "cache"
    console.print("first requests")
    ask_first(asking, local, cold_tables.LOCAL, taken)
    ask_first(asking, distant, cold_tables.S3, taken)
    console.print("evicted, in the page cache")
    ask_evicted(asking, local, plan, cold_tables.CACHED, taken, lambda _sample: None)
    console.print("evicted, on the disk")
    ask_evicted(
        asking, local, plan, cold_tables.DISK, taken, functools.partial(checked_drop, cache)
    )
    console.print("in process")
    for size in plan.first:
        sample = next(sample for sample in local if sample.size == size)
        taken.in_process_ms[size] = in_process_ms(sample, min(20, plan.evicted[size]))
    console.print(f"{plan.callers} at once")
    return list(run_stampedes(asking, once, plan.callers))


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    plan = QUICK if args.quick else WHOLE
    for name in ("places", "thrash"):
        (folder / name).mkdir()
    taken, rushed = measure(console, plan, folder / "places")
    thrashed = thrash.run(console, plan.thrash, folder / "thrash")
    return cold_tables.summarise(
        taken.took_ms, taken.in_process_ms, rushed, thrashed, is_quick=args.quick
    )


def main() -> int:
    return program.main("cold", program.parser(__doc__), run)


if __name__ == "__main__":
    sys.exit(main())
