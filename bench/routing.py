"""Measure what routing costs: one tiny ONNX model through a mesh, through its peers, in process.

The systems take turns, round after round, under the same load on this machine: 1, 8, 32 and 128
requests in flight from h2load, which costs little itself; then the same from real Python clients;
then inputs of 1 KB to 10 MB. CPU is user and system time of every process of the serving side,
memory what all of them take together. Answers are checked by tritonclient before and after each
system's load, one by one by the Python clients, and under h2load by their length, because it takes
an error for an answer.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from bench import (
    callers,
    environments,
    h2load,
    program,
    results,
    routing_tables,
    runs,
    served,
    systems,
    tiny,
    wide,
)
from bench.peers import sessions
from meshserve.protocol.pb import inference_pb2 as pb

SEED = 1
METHOD = "inference.GRPCInferenceService/ModelInfer"
X = np.linspace(-1, 1, tiny.INPUTS, dtype=np.float32)[None]
SIZES = {"1 KB": 1 << 10, "100 KB": 100 << 10, "1 MB": 1 << 20, "10 MB": 10 << 20}
READY_S = 120
SETTLE_TRIES, SETTLE_REQUESTS, SETTLE_S = 10, 500, 1.0
REQUESTS_MAX, REQUESTS_MIN = 60_000, 20
PEERS_FAULTS = (
    environments.NotInstalled,
    served.NotServing,
    h2load.LoadFailed,
    callers.CallFailed,
    InferenceServerException,
)
FAILURES = (*PEERS_FAULTS, program.WrongAnswer)


@dataclass(frozen=True)
class Plan:
    """What is run against each system, and for how long."""

    systems: tuple[str, ...]
    in_flight: tuple[int, ...]
    clients: tuple[tuple[str, int], ...]
    sizes: tuple[str, ...]
    seconds: float


WHOLE = Plan(
    systems=(*systems.STARTS, systems.ALONE),
    in_flight=(1, 8, 32, 128),
    clients=(("tritonclient", 1), ("tritonclient", 32), ("grpc.aio", 1), ("grpc.aio", 32)),
    sizes=tuple(SIZES),
    seconds=4.0,
)
QUICK = Plan(
    (systems.OURS, systems.BARE, systems.ALONE), (1, 32), (("tritonclient", 8),), ("1 MB",), 2.0
)


def infer(running: systems.Running, model: str, x: np.ndarray) -> np.ndarray:
    """Return one answer by a real client; `x` and the answer are FP32 of shape (rows, n)."""
    with contextlib.closing(triton.InferenceServerClient(running.endpoint)) as client:
        tensor = triton.InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        return client.infer(model, [tensor], headers=running.metadata(model)).as_numpy("y")


def check(running: systems.Running, models: Path) -> None:
    """Compare a real client's answers with ONNX Runtime's. Raises WrongAnswer."""
    session, chance = sessions.load(str(models / "tiny.onnx")), np.random.default_rng(SEED)
    for rows in (1, 1, 3, 8):
        x = chance.standard_normal((rows, tiny.INPUTS)).astype(np.float32)
        if not np.allclose(
            infer(running, "tiny", x), session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5
        ):
            raise program.WrongAnswer(f"a wrong answer to {rows} rows")


def answers(running: systems.Running) -> bool:
    """Tell whether both models answer."""
    with contextlib.suppress(InferenceServerException):
        return (
            infer(running, "tiny", X) is not None
            and infer(running, "wide", wide.rows(1024)) is not None
        )
    return False


def request_body(model: str, x: np.ndarray) -> bytes:
    """Return a call as h2load sends it; `x` is FP32 of shape (rows, n)."""
    message = pb.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return h2load.framed(message.SerializeToString())


class Load:
    """Load on one running system, for the plan's seconds each time."""

    def __init__(self, running: systems.Running, seconds: float) -> None:
        self.running = running
        self.seconds = seconds
        self.cpu_us_by_process: dict[str, float] = {}

    def by_h2load(self, model: str, x: np.ndarray, number: int) -> runs.Run:
        """Keep `number` requests in flight: a few to learn how many to send, then a measured run.

        `x` is FP32 of shape (rows, n). Raises WrongAnswer if answers differ in length.
        """
        once = self._send(model, x, h2load.Load(1, 1, 1))
        probe = self._send(model, x, h2load.in_flight(number, max(REQUESTS_MIN, 8 * number)))
        requests = counted(probe.requests_per_s * self.seconds)
        before = self.running.served.cpu_s()
        seen = self._send(model, x, h2load.in_flight(number, max(requests, number)))
        after = self.running.served.cpu_s()
        if seen.answer_bytes != seen.requests * once.answer_bytes:
            raise program.WrongAnswer(
                f"some of {seen.requests} answers have another length than the one that was checked"
            )
        self.cpu_us_by_process = cpu_us_by_process(before, after, seen.requests)
        cpu_us = served.spent_s(before, after) / seen.requests * 1e6
        return runs.Run(seen.requests_per_s, seen.p50_ms, seen.p99_ms, seen.p999_ms, cpu_us)

    def clients(self, kind: str, number: int, row: Path) -> runs.Run:
        """Keep `number` requests in flight from a Python client of this kind, the same way."""
        probe = self._call(kind, number, row, REQUESTS_MIN * number)
        seen = self._call(kind, number, row, counted(probe.requests_per_s * self.seconds))
        return runs.Run(seen.requests_per_s, seen.p50_ms, seen.p99_ms)

    def settle(self) -> None:
        """Wait until Ray Serve's HAProxy, which restarts once, drops no connection."""
        for _ in range(SETTLE_TRIES):
            with contextlib.suppress(h2load.LoadFailed):
                self._send("tiny", X, h2load.Load(SETTLE_REQUESTS, 1, 1))
                return
            time.sleep(SETTLE_S)

    def _send(self, model: str, x: np.ndarray, load: h2load.Load) -> h2load.Outcome:
        url = f"http://{self.running.endpoint}/{METHOD}"
        return h2load.run(url, request_body(model, x), load, self.running.metadata(model))

    def _call(self, kind: str, number: int, row: Path, requests: int) -> callers.Seen:
        metadata = self.running.metadata("tiny")
        return callers.run(
            callers.Calls(self.running.endpoint, "tiny", kind, number, requests, metadata), row
        )


def counted(wanted: float) -> int:
    """Return a number of requests within bounds."""
    return int(min(REQUESTS_MAX, max(REQUESTS_MIN, wanted)))


def cpu_us_by_process(
    before: Mapping[int, float], after: Mapping[int, float], requests: int
) -> dict[str, float]:
    """Return microseconds a request by the processes' titles, the greatest first."""
    spent: dict[str, float] = defaultdict(float)
    for pid, now_s in after.items():
        spent[served.title(pid)] += (now_s - before.get(pid, 0.0)) / requests * 1e6
    return {
        title: round(us, 1)
        for title, us in sorted(spent.items(), key=lambda item: -item[1])
        if us >= 0.1
    }


def measure(
    running: systems.Running, models: Path, plan: Plan, tell: Callable[[str], None]
) -> runs.Figures:
    """Run the whole plan on one system. Raises one of FAILURES."""
    began_s = time.monotonic()
    running.served.wait_until(lambda: answers(running), READY_S)
    ready_s = time.monotonic() - began_s
    check(running, models)
    load = Load(running, plan.seconds)
    measured: dict[str, runs.Run] = {}
    shares: dict[str, float] = {}
    if running.is_ray:
        load.settle()
    for number in plan.in_flight:
        tell(runs.in_flight(number))
        measured[runs.in_flight(number)] = load.by_h2load("tiny", X, number)
        shares = load.cpu_us_by_process if number == routing_tables.USUAL else shares
    memory_mib = running.served.memory_bytes() / 2**20
    for kind, number in plan.clients:
        tell(runs.by_client(kind, number))
        measured[runs.by_client(kind, number)] = load.clients(kind, number, models / "row.npz")
    for size in plan.sizes:
        tell(size)
        measured[size] = load.by_h2load(
            "wide", wide.rows(SIZES[size]), routing_tables.SIZE_IN_FLIGHT
        )
    check(running, models)
    return runs.Figures(measured, memory_mib, ready_s, shares)


def alone(models: Path, seconds: float) -> runs.Figures:
    """Measure ONNX Runtime in this process, one call after another."""
    session, took_ms = sessions.load(str(models / "tiny.onnx")), []
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    while time.perf_counter() - began_s < seconds:
        call_s = time.perf_counter()
        session.run(None, {"x": X})
        took_ms.append((time.perf_counter() - call_s) * 1e3)
    elapsed_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
    p50_ms, p99_ms, p999_ms = map(float, np.percentile(took_ms, [50, 99, 99.9]))
    cpu_us = cpu_s / len(took_ms) * 1e6
    one = runs.Run(len(took_ms) / elapsed_s, p50_ms, p99_ms, p999_ms, cpu_us)
    return runs.Figures({runs.in_flight(1): one})


def write_models(folder: Path) -> Path:
    """Write the folder that every system serves, and a row with its answer beside the models."""
    tiny.write(folder / "tiny.onnx", SEED)
    wide.write(folder / "wide.onnx")
    np.savez(folder / "row.npz", x=X, y=tiny.answer(SEED, X))
    return folder


def one_round(console: Console, plan: Plan, folder: Path, missing: dict[str, str]) -> runs.Round:
    """Measure each system once, except those in `missing`.

    A peer that fails now is added to them, with the reason; our own system must not fail.
    """
    models, figures = write_models(folder / "models"), {}
    for name in [name for name in plan.systems if name not in missing]:
        console.print(f"  {name}", highlight=False)
        place = folder / name.replace(" ", "-").replace(",", "")
        place.mkdir()
        try:
            figures[name] = (
                alone(models, plan.seconds)
                if name == systems.ALONE
                else _started(console, name, (models, place), plan)
            )
        except FAILURES as failure:
            if name in (systems.OURS, systems.BARE):
                raise
            missing[name] = reason(failure)
            console.print(f"    {missing[name]}", markup=False, highlight=False)
    return figures


def _started(console: Console, name: str, places: tuple[Path, Path], plan: Plan) -> runs.Figures:
    with systems.STARTS[name](*places) as running:
        return measure(
            running, places[0], plan, lambda what: console.print(f"    {what}", highlight=False)
        )


def reason(failure: Exception) -> str:
    """Return in a line why a peer is missing: the last one of its log is nearest to the cause."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return (
        (lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1]}")[:300]
        if lines
        else type(failure).__name__
    )


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    """Run all rounds."""
    plan = QUICK if args.quick else WHOLE
    missing: dict[str, str] = {}
    rounds: list[runs.Round] = []
    if args.systems:
        plan = Plan(tuple(args.systems), plan.in_flight, plan.clients, plan.sizes, plan.seconds)
    if args.seconds:
        plan = Plan(plan.systems, plan.in_flight, plan.clients, plan.sizes, args.seconds)
    count = args.rounds or (1 if args.quick else 3)
    for number in range(1, count + 1):
        console.print(f"round {number} of {count}", highlight=False)
        place = folder / str(number)
        (place / "models").mkdir(parents=True)
        rounds.append(one_round(console, plan, place, missing))
    sizes = {
        "seconds a run": plan.seconds,
        "in flight": plan.in_flight,
        "inputs": plan.sizes,
        "requests at most": REQUESTS_MAX,
    }
    return routing_tables.summarise(rounds, sizes, missing, is_quick=args.quick)


def main() -> int:
    parser = program.parser(__doc__)
    parser.add_argument("--rounds", type=int, help="default: 3, quick 1")
    parser.add_argument("--seconds", type=float, help="of each run of load; default: 4, quick 2")
    known = ", ".join(WHOLE.systems)
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=WHOLE.systems,
        metavar="SYSTEM",
        help=f"of {known}; default: all",
    )
    return program.main("routing", parser, run)


if __name__ == "__main__":
    sys.exit(main())
