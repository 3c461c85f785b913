"""What routing costs: one tiny ONNX model through meshserve, through a bare grpc.aio server, and through ONNX Runtime alone.

In turn, round after round, under the same load on this machine: 4 connections of 8 requests in flight, then one request in flight.
CPU is user and system time of every process of the serving side. Answers are checked by tritonclient before and after each load,
because h2load takes an error for an answer. Writes bench/results/routing.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import bare
import h2load
import meshes
import numpy as np
import served
import tiny
from rich import box
from rich.console import Console
from rich.table import Table
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from meshserve.protocol.pb import inference_pb2 as pb

RESULTS = Path(__file__).with_name("results") / "routing.json"
CPU_US_MAX, SPEED_RATIO_MIN = 220.0, 1.8
SEED = 1
METHOD = "inference.GRPCInferenceService/ModelInfer"
X = np.linspace(-1, 1, tiny.INPUTS, dtype=np.float32)[None]


@dataclass(frozen=True)
class Figures:
    """One system in one round, or the medians of all rounds."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    single_p50_ms: float
    single_p99_ms: float
    cpu_us_by_process: Mapping[str, float] = field(default_factory=dict)


def infer(client: triton.InferenceServerClient, x: np.ndarray) -> np.ndarray:
    tensor = triton.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return client.infer("tiny", [tensor]).as_numpy("y")


def check(endpoint: str, model: Path) -> None:
    """A real client's answers against ONNX Runtime's."""
    session = bare.session(str(model))
    chance = np.random.default_rng(SEED)
    with contextlib.closing(triton.InferenceServerClient(endpoint)) as client:
        for rows in (1, 1, 3, 8):
            x = chance.standard_normal((rows, tiny.INPUTS)).astype(np.float32)
            np.testing.assert_allclose(infer(client, x), session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)


def answers(endpoint: str) -> bool:
    with contextlib.closing(triton.InferenceServerClient(endpoint)) as client, contextlib.suppress(InferenceServerException):
        return infer(client, X) is not None
    return False


def request_body() -> bytes:
    message = pb.ModelInferRequest(model_name="tiny", raw_input_contents=[X.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=X.shape)
    return h2load.framed(message.SerializeToString())


def measure(system: served.Served, endpoint: str, model: Path, requests: int) -> Figures:
    url, body = f"http://{endpoint}/{METHOD}", request_body()
    system.wait_until(lambda: answers(endpoint), 90)
    check(endpoint, model)
    h2load.run(url, body, h2load.Load(requests // 10))
    before = system.cpu_s()
    many = h2load.run(url, body, h2load.Load(requests))
    after = system.cpu_s()
    single = h2load.run(url, body, h2load.Load(requests // 10, connections=1, streams=1))
    check(endpoint, model)
    cpu_us = served.spent_s(before, after) / requests * 1e6
    speeds = (many.requests_per_s, many.p50_ms, many.p99_ms, cpu_us, single.p50_ms, single.p99_ms)
    return Figures(*speeds, cpu_us_by_process(before, after, requests))


def cpu_us_by_process(before: Mapping[int, float], after: Mapping[int, float], requests: int) -> dict[str, float]:
    """Microseconds a request by what processes call themselves, the greatest first."""
    spent: Counter[str] = Counter()
    for pid, now_s in after.items():
        spent[served.title(pid)] += (now_s - before.get(pid, 0.0)) / requests * 1e6
    return {title: round(us, 1) for title, us in spent.most_common() if us >= 0.1}


@contextlib.contextmanager
def bare_server(folder: Path, endpoint: str) -> Iterator[served.Served]:
    program = Path(__file__).with_name("bare.py")
    with served.serving([sys.executable, program, folder / "tiny.onnx", endpoint], folder / "bare.log") as system:
        yield system


def alone(model: Path, requests: int) -> Figures:
    """ONNX Runtime in this process, one call after another."""
    session = bare.session(str(model))
    took_ms = np.empty(requests)
    started_s, cpu_started_s = time.perf_counter(), time.process_time()
    for index in range(requests):
        call_s = time.perf_counter()
        session.run(None, {"x": X})
        took_ms[index] = (time.perf_counter() - call_s) * 1e3
    elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_started_s
    p50_ms, p99_ms = (float(p) for p in np.percentile(took_ms, [50, 99]))
    return Figures(requests / elapsed_s, p50_ms, p99_ms, cpu_s / requests * 1e6, p50_ms, p99_ms)


def one_round(folder: Path, requests: int, workers: int) -> dict[str, Figures]:
    """Each system once."""
    model, figures = folder / "tiny.onnx", {}
    with meshes.up(folder, meshes.pool(workers, "1GiB"), models=[{"name": "tiny", "uri": str(model)}]) as mesh:
        figures["meshserve"] = measure(mesh.system, mesh.endpoint, model, requests)
    endpoint = f"127.0.0.1:{served.free_port()}"
    with bare_server(folder, endpoint) as system:
        figures["bare grpc.aio"] = measure(system, endpoint, model, requests)
    figures["onnxruntime alone"] = alone(model, requests)
    return figures


def medians(rounds: list[dict[str, Figures]]) -> dict[str, Figures]:
    names = [each.name for each in fields(Figures) if each.name != "cpu_us_by_process"]
    return {
        system: Figures(*(statistics.median(getattr(figures[system], name) for figures in rounds) for name in names))
        for system in rounds[0]
    }


def table(title: str, figures: dict[str, Figures]) -> Table:
    drawn = Table(title=title, box=box.SIMPLE, caption="1: one request in flight; ×: beside the bare server")
    drawn.add_column("system")
    for heading in ("req/s", "p50 ms", "p99 ms", "CPU µs/req", "1: p50", "1: p99", "req/s ×", "CPU ×"):
        drawn.add_column(heading, justify="right")
    bare_figures = figures["bare grpc.aio"]
    for system, f in figures.items():
        cells = [
            f"{f.requests_per_s:,.0f}",
            f"{f.p50_ms:.2f}",
            f"{f.p99_ms:.2f}",
            f"{f.cpu_us:,.0f}",
            f"{f.single_p50_ms:.2f}",
            f"{f.single_p99_ms:.2f}",
        ]
        drawn.add_row(system, *cells, f"{f.requests_per_s / bare_figures.requests_per_s:.2f}", f"{f.cpu_us / bare_figures.cpu_us:.2f}")
    return drawn


def targets(figures: dict[str, Figures]) -> dict[str, bool]:
    mesh, other = figures["meshserve"], figures["bare grpc.aio"]
    ratio = mesh.requests_per_s / other.requests_per_s
    return {
        f"CPU per request ≤ {CPU_US_MAX:.0f} µs: {mesh.cpu_us:.0f} µs": mesh.cpu_us <= CPU_US_MAX,
        f"req/s ≥ {SPEED_RATIO_MIN} × bare grpc.aio: {ratio:.2f} ×": ratio >= SPEED_RATIO_MIN,
    }


def machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "load_before": os.getloadavg()[0]}


def save(args: argparse.Namespace, rounds: list[dict[str, Figures]], here: dict[str, object]) -> None:
    saved_rounds = [{system: asdict(figures) for system, figures in each.items()} for each in rounds]
    middle = medians(rounds)
    document = {
        "machine": here,
        "load": {"requests": args.requests, "connections": 4, "streams": 8},
        "medians": {system: asdict(figures) for system, figures in middle.items()},
        "targets": targets(middle),
        "rounds": saved_rounds,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=30_000, help="of one load; a tenth of it to warm up, and one in flight")
    parser.add_argument("--workers", type=int, default=1, help="of meshserve's pool; one model has one home")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where a target is missed")
    args = parser.parse_args()
    console, rounds, here = Console(width=None if sys.stdout.isatty() else 112), [], machine()
    served.end_by_signals()
    try:
        for number in range(1, args.rounds + 1):
            with tempfile.TemporaryDirectory() as folder:
                tiny.write(Path(folder, "tiny.onnx"), SEED)
                rounds.append(one_round(Path(folder), args.requests, args.workers))
            console.print(table(f"round {number} of {args.rounds}", rounds[-1]))
            shares = rounds[-1]["meshserve"].cpu_us_by_process
            console.print(
                "meshserve's CPU µs/req: " + ", ".join(f"{title} {us:.0f}" for title, us in shares.items()), highlight=False, soft_wrap=True
            )
    except (h2load.LoadFailed, served.NotServing) as failure:
        console.print(f"routing: {failure}", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    middle = medians(rounds)
    console.print(table("medians", middle))
    reached = targets(middle)
    for target, is_reached in reached.items():
        console.print(f"{'reached' if is_reached else 'MISSED '}  {target}")
    save(args, rounds, here)
    return int(args.strict and not all(reached.values()))


if __name__ == "__main__":
    sys.exit(main())
