"""Ask for one model on one worker, and on as many as the mesh puts it on.

The model waits, as one on an accelerator would, so that workers limit it and not the cores of this
machine. Load is a number of requests in flight from Python's grpc.aio; every answer is checked,
also while the model spreads. Beside it runs the product's own controller in simulation: workers of
a fixed capacity, any load, one second at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from rich.console import Console

from bench import meshes, program, results, scale
from meshserve import tasks
from meshserve.core.values import commands, desired, events, gateway_events, model, nodes, reports
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc

WORKERS, IN_FLIGHT = 4, 64
RATIO_MIN = 3.0
READY_S, SPREAD_S, CALL_S_MAX = 120, 60, 60
NAME, WAIT_S = "hot", 0.01
WAITING = f"""
import time

class Model:
    inputs = [("x", "FP32", [-1, 4])]
    outputs = [("y", "FP32", [-1, 4])]

    def predict(self, inputs):
        time.sleep({WAIT_S})
        return {{"y": inputs["x"] * 2}}
"""
X = np.arange(4, dtype=np.float32)[None]
LOADS = (0.5, 1.0, 2.0, 4.0, 8.0)
SIMULATED_WORKERS, SIMULATED_S = 8, 120


@dataclass(frozen=True)
class Served:
    """One load: requests a second, their median time, and the model's workers in the end."""

    requests_per_s: float
    p50_ms: float
    workers: int
    spread_s: float = 0.0


@dataclass(frozen=True)
class Simulated:
    """A simulated load in units of one worker: how much was served, by how many, since when."""

    load: float
    served: float
    workers: int
    settled_s: int


class Load:
    """Keep requests for the one model in flight until stopped."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.took_ms: list[float] = []
        self._stub = rpc.GRPCInferenceServiceStub(channel)
        self._is_over = False

    async def run(self) -> None:
        """Ask until stopped. Raises program.WrongAnswer, grpc.RpcError."""
        async with asyncio.TaskGroup() as callers:
            for _ in range(IN_FLIGHT):
                callers.create_task(self._call())

    def stop(self) -> None:
        """Send no new requests."""
        self._is_over = True

    async def _call(self) -> None:
        request = pb.ModelInferRequest(model_name=NAME, raw_input_contents=[X.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=X.shape)
        while not self._is_over:
            began_s = time.perf_counter()
            answer = await self._stub.ModelInfer(request, timeout=CALL_S_MAX)
            self.took_ms.append((time.perf_counter() - began_s) * 1e3)
            if not np.array_equal(
                np.frombuffer(answer.raw_output_contents[0], np.float32), X[0] * 2
            ):
                raise program.WrongAnswer("a wrong answer")


def count_workers(endpoint: str) -> int:
    """Return on how many workers the model is asked for."""
    spread = {row["model"]: row["workers"] for row in meshes.status(endpoint)["spread"]}
    return len(spread.get(NAME, ())) or 1


async def measure(endpoint: str, workers: int, seconds: float) -> Served:
    """Put load on the model until it is on that many workers, then measure. Raises WrongAnswer."""
    async with grpc.aio.insecure_channel(endpoint) as channel:
        load = Load(channel)
        running = tasks.spawn(load.run(), "load", is_awaited=True)
        began_s = time.monotonic()
        while await asyncio.to_thread(count_workers, endpoint) < workers and not running.done():
            if time.monotonic() - began_s > SPREAD_S:
                raise program.WrongAnswer(
                    f"after {SPREAD_S} s the model is not on {workers} workers"
                )
            await asyncio.sleep(0.2)
        spread_s = time.monotonic() - began_s
        await asyncio.sleep(1.0)
        first, counted_s = len(load.took_ms), time.perf_counter()
        await asyncio.wait([running], timeout=seconds)
        took_ms, elapsed_s = load.took_ms[first:], time.perf_counter() - counted_s
        load.stop()
        await running
    return Served(
        len(took_ms) / elapsed_s,
        float(np.median(took_ms)),
        await asyncio.to_thread(count_workers, endpoint),
        spread_s,
    )


def serve(folder: Path, copies_max: int, seconds: float) -> Served:
    """Run a mesh in which the model may be on that many workers."""
    artifact = folder / "model"
    artifact.mkdir(parents=True)
    (artifact / "model.py").write_text(WAITING)
    pool = {"workers": WORKERS, "memory": "512MiB", "copies_max": copies_max}
    entry = {"name": NAME, "uri": str(artifact), "runtime": "python", "trust": True, "pinned": True}
    with meshes.up(folder, {"default": pool}, models=[entry]) as mesh:
        mesh.system.wait_until(lambda: meshes.is_ready(mesh.endpoint), READY_S)
        return asyncio.run(measure(mesh.endpoint, copies_max, seconds))


class World(scale.World):
    """Workers that can each do one unit of load a second for the model."""

    def __init__(self) -> None:
        super().__init__()
        self.id = model.ModelId(NAME)
        self.loaded: list[events.CopyEnsured] = []

    def _perform(self, command: commands.Command) -> None:
        if isinstance(command, commands.EnsureLoaded):
            self.loaded.append(events.CopyEnsured(command.worker_id, command.id))
        super()._perform(command)

    def places(self) -> tuple[str, ...]:
        """Return where the model's requests go."""
        routes = self.mesh.hot_models.routes()
        return routes[0].worker_ids if routes else (self.mesh.view().home(NAME) or "",)

    def second(self, load: float) -> float:
        """Let one second pass under this load; return how much was served."""
        self.now_s += 1.0
        places = self.places()
        shares = {
            worker.id: min(1.0, load / len(places)) if worker.id in places else 0.0
            for worker in self.mesh.workers.records.values()
        }
        loaded, self.loaded = self.loaded, []
        self.phase("second", [*loaded, *self._reports(shares), events.Ticked()])
        return sum(shares.values())

    def _reports(self, shares: dict[str, float]) -> Iterator[events.Event]:
        for worker_id, share in shares.items():
            demands = (reports.ModelDemand(self.id, share),) if share else ()
            known = self.mesh.workers.records[worker_id]
            yield events.WorkerReported(
                reports.WorkerReport(
                    worker_id, known.pid, "node", "ready", known.synced, demands=demands
                ),
                known.synced,
            )


def simulate(load: float) -> Simulated:
    """Run the model under one load, beginning with a fresh mesh."""
    world = World()
    pool = desired.PoolSettings(workers=SIMULATED_WORKERS, copies_max=SIMULATED_WORKERS)
    spec = model.ModelSpec(world.id, "/hot", origin=model.FROM_CONFIG)
    world.phase(
        "up",
        [
            events.Restored(),
            gateway_events.NodesSeen((nodes.ClusterNode("node"),)),
            events.AdminRequested(
                "up", events.ConfigApplied(desired.Desired(pools=(pool,), models=(spec,)))
            ),
        ],
    )
    seen = [(world.second(load), len(world.places())) for _ in range(SIMULATED_S)]
    settled_s = next(
        second for second in range(SIMULATED_S) if all(state == seen[-1] for state in seen[second:])
    )
    return Simulated(load, *seen[-1], settled_s)


def summarise(alone: Served, spread: Served, simulated: list[Simulated]) -> results.Results:
    """Return the tables and the goal."""
    head = ("the model is on", "req/s", "p50 ms", "s until it is")
    rows = tuple(
        (
            f"{served.workers} worker{'s' if served.workers > 1 else ''}",
            *map(results.figure, (served.requests_per_s, served.p50_ms, served.spread_s)),
        )
        for served in (alone, spread)
    )
    simulated_rows = tuple(
        (f"{result.load:g}", f"{result.served:.2f}", str(result.workers), str(result.settled_s))
        for result in simulated
    )
    tables = (
        results.Table(
            f"one model that waits {WAIT_S * 1e3:g} ms, {IN_FLIGHT} requests in flight, "
            f"{WORKERS} workers",
            head,
            rows,
        ),
        results.Table(
            "simulated: load and answers, × one worker",
            ("load", "answered", "workers", "s until it is so"),
            simulated_rows,
        ),
    )
    sizes = {"workers": WORKERS, "requests in flight": IN_FLIGHT}
    return results.Results(1, sizes, goals(alone, spread, simulated), tables)


def goals(alone: Served, spread: Served, simulated: list[Simulated]) -> tuple[results.Claim, ...]:
    """Return the goals, measured and simulated."""
    peer = ("one worker", alone.requests_per_s)
    one, four = (next(result for result in simulated if result.load == load) for load in (1.0, 4.0))
    return (
        results.times(
            f"one hot model, {WORKERS} workers", "req/s", spread.requests_per_s, peer, RATIO_MIN
        ),
        results.times(
            "the same in simulation, 4 × the load",
            "× one worker",
            four.served,
            ("1 × the load", one.served),
            RATIO_MIN,
        ),
    )


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    seconds = args.seconds or (3.0 if args.quick else 15.0)
    simulated = [simulate(load) for load in LOADS]
    alone, spread = (
        serve(folder / str(copies_max), copies_max, seconds) for copies_max in (1, WORKERS)
    )
    console.print(
        f"{alone.requests_per_s:.0f} req/s on one worker, "
        f"{spread.requests_per_s:.0f} on {spread.workers}",
        highlight=False,
    )
    return summarise(alone, spread, simulated)


def main() -> int:
    parser = program.parser(__doc__)
    parser.add_argument(
        "--seconds", type=float, help="that count, of each load; default: 15, quick 3"
    )
    return program.main("hot", parser, run)


if __name__ == "__main__":
    sys.exit(main())
