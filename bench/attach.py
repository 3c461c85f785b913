"""Measure how long an evicted PyTorch model of 400 MB takes to be back.

Its file is on the node's disk and in the page cache. Measured through one real worker without Ray:
the attach, the first answer after it and a warm one, beside the first load and beside torch's own
load of the same file in this process. Every answer is compared bit for bit with torch's. Then the
same through a whole mesh, and the memory of four processes that hold one model: mapped as workers
do it, and loaded as torch does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import torch
from rich.console import Console
from tritonclient import grpc as triton
from tritonclient.utils import np_to_triton_dtype

from bench import holders, meshes, program, results, served, solo, torch_models
from meshserve.core.values import model
from meshserve.worker import worker
from meshserve.worker.models import allocators, process_memory

ATTACH_MS_MAX, QUICK_RATIO = 50.0, 0.5
SHARED_RATIO_MAX = 0.5
HOLDERS, LOADS = 4, 3
WAIT_S, GONE_S_MAX, READY_S_MAX = 120, 30, 120


@dataclass(frozen=True)
class Plan:
    """The models to measure, and how often."""

    size_bytes: int
    kinds: tuple[torch_models.Kind, ...]
    rounds: int
    mesh_rounds: int


WHOLE = Plan(400 << 20, (torch_models.WIDE, torch_models.DEEP, torch_models.SCRIPTED), 200, 30)
QUICK = Plan(40 << 20, (torch_models.WIDE, torch_models.SCRIPTED), 80, 0)


@dataclass(frozen=True)
class Sample:
    """One model's file, rows for it, and torch's own answer."""

    kind: torch_models.Kind
    path: Path
    rows: np.ndarray
    answer: np.ndarray

    @property
    def name(self) -> str:
        """The model's name in the mesh."""
        return self.path.stem


@dataclass(frozen=True)
class Figures:
    """Milliseconds, and the private bytes of one resident copy. `torch_ms` is torch's own load."""

    torch_ms: float
    first_load_ms: float
    attach_ms: tuple[float, ...]
    first_answer_ms: tuple[float, ...]
    warm_ms: tuple[float, ...]
    private_bytes: int
    mapped_bytes: int


def write(folder: Path, kind: torch_models.Kind, size_bytes: int, number: int) -> Sample:
    path = folder / f"model-{number}{kind.ending}"
    rows = torch_models.write(path, kind, size_bytes)
    return Sample(kind, path, rows, torch_models.answer(torch_models.load(path), rows))


def timed_ms(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return (time.perf_counter() - began_s) * 1e3


def check(sample: Sample, given: np.ndarray) -> None:
    """Compare an answer bit for bit with torch's; any shape. Raises WrongAnswer."""
    if given.tobytes() != sample.answer.tobytes():
        raise program.WrongAnswer(
            f"{sample.name} ({sample.kind.name}) answers something else than torch"
        )


class Asking:
    """One caller of one model, in the worker's process."""

    def __init__(self, pool_worker: worker.PoolWorker, sample: Sample) -> None:
        self._host = pool_worker.host
        self._id = model.ModelId(sample.name)
        self._sample = sample
        self.input = "x"

    async def back_ms(self) -> tuple[float, float, float]:
        """Return milliseconds to the attached model, to its first answer, and to another one."""
        began_s = time.perf_counter()
        resident = await self._host.lease(self._id, asyncio.get_running_loop().time() + WAIT_S)
        there_ms = (time.perf_counter() - began_s) * 1e3
        rows, loaded = (
            {resident.signature.inputs[0].name: self._sample.rows},
            resident.loaded_copy.loaded,
        )
        first_ms, warm_ms = (timed_ms(lambda: loaded.predict(rows, ())) for _ in range(2))
        check(self._sample, next(iter(loaded.predict(rows, ()).values())))
        self._host.release(resident)
        return there_ms, first_ms, warm_ms

    async def leave(self) -> None:
        """Have the model evicted, and wait until it is."""
        self._host.unload(self._id)
        while self._host.footprint(self._id).host_bytes:  # noqa: ASYNC110 - nothing tells of a copy's end
            await asyncio.sleep(0.001)


async def measure(folder: Path, sample: Sample, rounds: int) -> Figures:
    """Measure one model in a worker of its own.

    The duration of the first load is the worker's own figure: before it the file is copied into the
    cache.
    """
    async with solo.serving(folder, [solo.Entry(sample.name, sample.path)]) as pool_worker:
        asking = Asking(pool_worker, sample)
        gc.collect()
        allocators.current().trim()
        before_bytes = process_memory.private_bytes()
        await asking.back_ms()
        private_bytes = process_memory.private_bytes() - before_bytes
        measured = pool_worker.host.take_measured()[model.ModelId(sample.name)]
        mapped_bytes = pool_worker.host.effects.memory.mapped_bytes
        taken = []
        for _ in range(rounds):
            await asking.leave()
            taken.append(await asking.back_ms())
    torch_ms = statistics.median(
        timed_ms(lambda: torch_models.load(sample.path)) for _ in range(LOADS)
    )
    attach_ms, first_answer_ms, warm_ms = (tuple(column) for column in zip(*taken, strict=True))
    return Figures(
        torch_ms=torch_ms,
        first_load_ms=measured.load_s * 1e3,
        attach_ms=attach_ms,
        first_answer_ms=first_answer_ms,
        warm_ms=warm_ms,
        private_bytes=private_bytes,
        mapped_bytes=mapped_bytes,
    )


def held_bytes(folder: Path, sample: Sample, how: str) -> int:
    """Return the memory of several processes that hold the model; shared pages count once."""
    command = served.own_program("holders", how, sample.path)
    with contextlib.ExitStack() as stack:
        systems = [
            stack.enter_context(served.serving(command, folder / f"{how}-{number}.log"))
            for number in range(HOLDERS)
        ]
        for system in systems:
            system.wait_until(functools.partial(_is_holding, system.log), READY_S_MAX)
        return sum(system.memory_bytes() for system in systems)


def _is_holding(log: Path) -> bool:
    return holders.HOLDING in log.read_text()


def through_the_mesh(folder: Path, sample: Sample, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of requests through gateway and worker, evicted and resident."""
    taken: dict[str, list[float]] = {"evicted": [], "resident": []}
    models = [{"name": sample.name, "uri": str(sample.path)}]
    with meshes.up(folder, meshes.pool(1, "2GiB"), models=models) as mesh:
        mesh.system.wait_until(lambda: meshes.is_ready(mesh.endpoint), READY_S_MAX)
        with contextlib.closing(triton.InferenceServerClient(mesh.endpoint)) as client:
            given = triton.InferInput(
                input_name(client, sample),
                list(sample.rows.shape),
                np_to_triton_dtype(sample.rows.dtype),
            )
            given.set_data_from_numpy(sample.rows)

            def ask_ms() -> float:
                return timed_ms(lambda: check(sample, ask(client, sample, given)))

            for _ in range(rounds):
                evict(mesh, sample.name)
                taken["evicted"].append(ask_ms())
                taken["resident"].append(ask_ms())
    return taken


def input_name(client: triton.InferenceServerClient, sample: Sample) -> str:
    return str(client.get_model_metadata(sample.name, client_timeout=WAIT_S).inputs[0].name)


def ask(
    client: triton.InferenceServerClient, sample: Sample, given: triton.InferInput
) -> np.ndarray:
    """Return the mesh's answer of any shape. Raises InferenceServerException."""
    answer = client.infer(sample.name, [given], client_timeout=WAIT_S)
    return answer.as_numpy(answer.get_response().outputs[0].name)


def evict(mesh: meshes.Mesh, name: str) -> None:
    url = f"http://{mesh.endpoint}/mesh/v1/models/{name}"
    httpx.post(f"{url}/unload", timeout=WAIT_S).raise_for_status()
    mesh.system.wait_until(
        lambda: httpx.get(url, timeout=WAIT_S).json()["state"] == "absent", GONE_S_MAX
    )


def percentile(values: tuple[float, ...] | list[float], share: float) -> float:
    return float(np.percentile(values, share))


def row(what: str, measured: Figures) -> tuple[str, ...]:
    taken = (
        measured.torch_ms,
        measured.first_load_ms,
        percentile(measured.attach_ms, 50),
        percentile(measured.attach_ms, 99),
        percentile(measured.first_answer_ms, 50),
        percentile(measured.warm_ms, 50),
        measured.mapped_bytes / 2**20,
        measured.private_bytes / 2**20,
    )
    return (what, *map(results.figure, taken))


HEAD = (
    "model",
    "torch's load ms",
    "first load ms",
    "attach p50 ms",
    "p99 ms",
    "first answer ms",
    "warm ms",
    "MiB mapped",
    "MiB private",
)


def claim(what: str, measured: Figures, *, is_quick: bool) -> results.Claim:
    """Return one kind's goal; in the quick version, its floor beside torch's own load."""
    if is_quick:
        peer = ("torch's load", measured.torch_ms)
        return results.times_at_most(
            f"{what}: attached, p50", "ms", percentile(measured.attach_ms, 50), peer, QUICK_RATIO
        )
    return results.at_most(
        f"{what}: attached, p99", percentile(measured.attach_ms, 99), "ms", ATTACH_MS_MAX
    )


def summarise(
    plan: Plan, figures: dict[str, Figures], held: dict[str, int], mesh: dict[str, list[float]]
) -> results.Results:
    """Return the tables and the goals."""
    size = f"{plan.size_bytes >> 20} MB"
    kept = {
        "by model": {what: asdict(measured) for what, measured in figures.items()},
        "held bytes": held,
        "mesh ms": mesh,
    }
    return results.Results(
        1,
        asdict(plan) | {"kinds": [kind.name for kind in plan.kinds]},
        claims(size, figures, held, is_quick=plan is QUICK),
        tables(size, figures, mesh),
        (chart(size, figures),),
        kept,
    )


def claims(
    size: str, figures: dict[str, Figures], held: dict[str, int], *, is_quick: bool
) -> tuple[results.Claim, ...]:
    """Return each kind's goal, and that of processes that share one model."""
    peer = ("torch's load", (held["plain"] - held["none"]) / 2**20)
    ours_mib = (held["mapped"] - held["none"]) / 2**20
    what = f"one {size} model in {HOLDERS} processes"
    return (
        *(
            claim(f"{kind}, {size}", measured, is_quick=is_quick)
            for kind, measured in figures.items()
        ),
        results.times_at_most(what, "MiB", ours_mib, peer, SHARED_RATIO_MAX),
    )


def tables(
    size: str, figures: dict[str, Figures], mesh: dict[str, list[float]]
) -> tuple[results.Table, ...]:
    """Return the worker's table, and the whole mesh's if it was measured."""
    worker_table = results.Table(
        f"{size} models evicted and attached again, one worker",
        HEAD,
        tuple(row(*pair) for pair in figures.items()),
    )
    if not mesh:
        return (worker_table,)
    rows = tuple(
        (what, *(results.figure(percentile(taken, share)) for share in (50, 99)))
        for what, taken in mesh.items()
    )
    title = f"a request to a {size} model through the mesh"
    return (worker_table, results.Table(title, ("model", "p50 ms", "p99 ms"), rows))


def chart(size: str, figures: dict[str, Figures]) -> results.Chart:
    """Return the chart of torch's load beside the attach."""
    bars = tuple(
        results.Bar(f"{what}: {how}", value, how == "attached")
        for what, measured in figures.items()
        for how, value in spans(measured)
    )
    return results.Chart("attach", f"Until a {size} model is there", "ms", bars, is_log=True)


def spans(measured: Figures) -> tuple[tuple[str, float], ...]:
    return ("torch's load", measured.torch_ms), ("attached", percentile(measured.attach_ms, 50))


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    plan = QUICK if args.quick else WHOLE
    torch.set_num_threads(1)
    samples = [
        write(folder, kind, plan.size_bytes, number) for number, kind in enumerate(plan.kinds)
    ]
    figures = {}
    for number, sample in enumerate(samples):
        (place := folder / f"worker-{number}").mkdir()
        figures[sample.kind.name] = asyncio.run(measure(place, sample, args.rounds or plan.rounds))
        attach_ms = percentile(figures[sample.kind.name].attach_ms, 50)
        console.print(
            f"{sample.kind.name}: attached in {attach_ms:.2f} ms",
            highlight=False,
        )
    held = {how: held_bytes(folder, samples[0], how) for how in ("none", "plain", "mapped")}
    mesh = through_the_mesh(folder, samples[0], plan.mesh_rounds) if plan.mesh_rounds else {}
    return summarise(plan, figures, held, mesh)


def main() -> int:
    solo.be_a_worker()
    parser = program.parser(__doc__)
    parser.add_argument(
        "--rounds", type=int, help="evictions of each model; default: 200, quick 80"
    )
    return program.main("attach", parser, run)


if __name__ == "__main__":
    sys.exit(main())
