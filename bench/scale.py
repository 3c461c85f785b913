"""Run the controller's decisions for a million models on a thousand simulated workers.

The mesh is the product's; workers and gateways answer each command at once. Everything is
registered, every worker reports copies and what it measured, then a tenth of the workers are lost
and come back, and the pool grows by a tenth. Measured are events and commands, the memory of a
model, the models whose home moved then, and with one more worker at some sizes, and how evenly
models, bytes and requests (Zipf) lie on the ring.
"""

from __future__ import annotations

import argparse
import collections
import gc
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import growth, program, results, traces
from meshserve.core.mesh import mesh
from meshserve.core.processes import hash_ring
from meshserve.core.values import commands, desired, events, gateway_events, model, nodes, reports
from meshserve.worker.models import process_memory

POOL, WORKERS_A_NODE = "default", 8
BATCH = 1_000
# Copies that each worker reports.
RESIDENT = 1_000
LOST_SHARE = GROWTH_SHARE = 0.1
EVENTS_PER_S_MIN, HOMES_PER_S_MIN = 2_000.0, 50_000.0
BYTES_A_MODEL_MAX = 4_096.0
MODELS_IMBALANCE_MAX = 1.5
EXPONENT = 1.0


@dataclass(frozen=True)
class Phase:
    """One phase: events handled, commands that followed, seconds in the mesh, the slowest event."""

    name: str
    events: int
    commands: int
    seconds: float
    slowest_ms: float

    @property
    def per_s(self) -> float:
        """Events a second, with the commands that followed."""
        return self.events / self.seconds


class World:
    """Everything around the mesh, which does at once what it is ordered."""

    def __init__(self) -> None:
        self.mesh = mesh.Mesh()
        self.now_s = 0.0
        self.phases: list[Phase] = []
        self._queue: collections.deque[events.Event] = collections.deque()
        self._pids = 0
        self._commands = 0

    def phase(self, name: str, wanted: Iterable[events.Event]) -> Phase:
        """Handle these events and all that follow."""
        took_s, self._commands = [], 0
        for event in wanted:
            self._queue.append(event)
            while self._queue:
                took_s.append(self._handle(self._queue.popleft()))
        self.phases.append(Phase(name, len(took_s), self._commands, sum(took_s), max(took_s) * 1e3))
        return self.phases[-1]

    def _handle(self, event: events.Event) -> float:
        """Have the mesh handle the event and perform its commands; return the mesh's seconds."""
        began_s = time.perf_counter()
        asked = self.mesh.handle(event, self.now_s)
        took_s = time.perf_counter() - began_s
        for command in asked:
            self._perform(command)
        return took_s

    def _perform(self, command: commands.Command) -> None:
        self._commands += 1
        match command:
            case commands.SaveChanges(changes=changes):
                self._queue.appendleft(events.ChangesSaved(changes))
            case commands.StartWorker(worker_id=id_):
                self._pids += 1
                self._queue.append(
                    events.WorkerStarted(
                        id_, model.Endpoint("node", "127.0.0.1", self._pids), self._pids
                    )
                )
            case commands.SendChanges(worker_id=id_, step=step):
                self._queue.append(events.WorkerSynced(id_, step.revision))
            case commands.StopWorker(worker_id=id_):
                self._queue.append(events.WorkerStopped(id_))
            case commands.StartGateway(node=node):
                self._queue.append(
                    gateway_events.GatewayReported(
                        reports.GatewayReport(node, 1, 2, "ready", "127.0.0.1:8080")
                    )
                )
            case commands.ConfigureGateway(node=node):
                self._queue.append(
                    gateway_events.GatewayConfigured(node, self.mesh.gateways.revision)
                )


def wanted(workers: int) -> desired.Desired:
    """Return the wanted state: one pool."""
    return desired.Desired(pools=(desired.PoolSettings(workers=workers),))


def registrations(models: int) -> Iterable[events.Event]:
    """Yield all models, some at a time."""
    for first in range(0, models, BATCH):
        numbers = range(first, min(first + BATCH, models))
        request = events.ModelsRegistered(
            tuple(
                model.ModelSpec(model.ModelId(name(number)), f"s3://bucket/{name(number)}.onnx")
                for number in numbers
            )
        )
        yield events.AdminRequested(f"register {first}", request)


def name(number: int) -> str:
    """Return a model's name."""
    return f"model-{number:07d}"


def all_reports(
    world: World, homes: dict[str, list[int]], sizes: np.ndarray, *, is_first: bool
) -> Iterable[events.Event]:
    """Yield each worker's report; `homes` has a worker's number for each model, shape (models,)."""
    for worker in list(world.mesh.workers.records.values()):
        numbers = homes.get(worker.id, [])[:RESIDENT]
        ids = [model.ModelId(name(number)) for number in numbers]
        footprints = [model.Footprint(int(sizes[number])) for number in numbers]
        copies = tuple(
            reports.CopyReport(id_, "ready", "", takes)
            for id_, takes in zip(ids, footprints, strict=True)
        )
        learned = tuple(
            reports.LearnedMeasurement(id_, model.Measured(f"sha256:{id_.name}", takes, 0.01))
            for id_, takes in zip(ids, footprints, strict=True)
        )
        said = reports.WorkerReport(
            worker.id,
            worker.pid,
            "node",
            "ready",
            worker.sent,
            copies=copies,
            measured=learned if is_first else (),
        )
        yield events.WorkerReported(said, worker.synced)


def homes_of(world: World, models: int) -> tuple[np.ndarray, float]:
    """Return each model's worker as a number, shape (models,), and look-ups a second."""
    view = world.mesh.view()
    began_s = time.perf_counter()
    ids = [view.home(name(number)) or "" for number in range(models)]
    per_s = models / (time.perf_counter() - began_s)
    return np.array(ids), per_s


def by_worker(homes: np.ndarray) -> dict[str, list[int]]:
    """Return the models' numbers by worker; `homes` has shape (models,)."""
    order = np.argsort(homes, kind="stable")
    ids, starts = np.unique(homes[order], return_index=True)
    return {
        str(id_): part.tolist() for id_, part in zip(ids, np.split(order, starts[1:]), strict=True)
    }


def imbalance(homes: np.ndarray, weights: np.ndarray) -> float:
    """Return the busiest worker's share against the mean; `homes`, `weights` of shape (models,)."""
    _, places = np.unique(homes, return_inverse=True)
    shares = np.bincount(places, weights=weights)
    return float(shares.max() / shares.mean())


@dataclass(frozen=True)
class Scaled:
    """All figures."""

    phases: tuple[Phase, ...]
    bytes_a_model: float
    homes_per_s: float
    moved: dict[str, float]
    imbalances: dict[str, float]
    steps: list[growth.Step] = field(default_factory=list)


def scale(console: Console, models: int, workers: int) -> Scaled:
    """Run all phases."""
    world, sizes = World(), traces.models(models).bytes
    weights = np.random.default_rng(5).permutation(
        np.arange(1, models + 1, dtype=float) ** -EXPONENT
    )

    def tell(phase: Phase) -> None:
        console.print(
            f"{phase.name}: {phase.events:,} events in {phase.seconds:.1f} s", highlight=False
        )

    machines = tuple(
        nodes.ClusterNode(f"node-{number}") for number in range(-(-workers // WORKERS_A_NODE))
    )
    tell(
        world.phase(
            "start",
            [
                events.Restored(is_config_coming=True),
                events.AdminRequested("start", events.ConfigApplied(wanted(workers))),
                gateway_events.NodesSeen(machines),
            ],
        )
    )
    gc.collect()
    before_bytes = process_memory.private_bytes()
    tell(world.phase("register", registrations(models)))
    gc.collect()
    bytes_a_model = (process_memory.private_bytes() - before_bytes) / models
    homes, homes_per_s = homes_of(world, models)
    console.print(f"homes: {homes_per_s:,.0f} a second", highlight=False)
    counts = by_worker(homes)
    tell(world.phase("first reports", all_reports(world, counts, sizes, is_first=True)))
    tell(world.phase("reports", all_reports(world, counts, sizes, is_first=False)))
    tell(world.phase("time", [events.Ticked()] * 100))
    moved = dict(_changes(world, workers, homes, tell))
    even = {"models": np.ones(models), "bytes": sizes.astype(float), "requests (Zipf)": weights}
    imbalances = {what: imbalance(homes, weights) for what, weights in even.items()}
    steps = growth.our_steps(models, even["bytes"], workers)
    return Scaled(tuple(world.phases), bytes_a_model, homes_per_s, moved, imbalances, steps)


def _changes(
    world: World, workers: int, homes: np.ndarray, tell: Callable[[Phase], None]
) -> Iterable[tuple[str, float]]:
    """Return the shares of models that moved, for a loss and for growth."""
    down = [f"{POOL}-{number}" for number in range(int(workers * LOST_SHARE))]
    without = homes_on(
        hash_ring.HashRing(set(world.mesh.workers.records).difference(down)),
        len(homes),
    )
    stayed = ~np.isin(homes, down)
    yield (
        "a tenth of the workers lost: moved, of the others' models",
        float((without != homes)[stayed].mean()),
    )
    tell(
        world.phase(
            "a tenth of the workers lost and back",
            [events.WorkerLost(id_, "the node is gone") for id_ in down],
        )
    )
    tell(
        world.phase(
            "a tenth more workers",
            [
                events.AdminRequested(
                    "grow", events.ConfigApplied(wanted(int(workers * (1 + GROWTH_SHARE))))
                )
            ],
        )
    )
    grown, _ = homes_of(world, len(homes))
    yield "a tenth more workers: moved, of all models", float((grown != homes).mean())


def homes_on(ring: hash_ring.HashRing, models: int) -> np.ndarray:
    """Return each model's worker on a ring of other workers, shape (models,)."""
    return np.array([ring.home(name(number)) for number in range(models)])


def summarise(scaled: Scaled, sizes: dict[str, object], *, is_quick: bool) -> results.Results:
    """Return tables and goals.

    The quick version has floors, for a size at which a step over all workers or models still shows.
    """
    rows = tuple(
        (
            phase.name,
            f"{phase.events:,}",
            f"{phase.commands:,}",
            *map(results.figure, (phase.seconds, phase.per_s, phase.slowest_ms)),
        )
        for phase in scaled.phases
    )
    phases = results.Table(
        "the controller's decisions",
        ("what happens", "events", "commands", "s", "events/s", "slowest ms"),
        rows,
    )
    shares = tuple((what, f"{share:.1%}") for what, share in scaled.moved.items())
    ratios = tuple(
        (f"busiest worker's {what}, × the mean", f"{ratio:.2f}")
        for what, ratio in scaled.imbalances.items()
    )
    sums = (
        ("memory of a registered model in the controller, bytes", f"{scaled.bytes_a_model:,.0f}"),
        *shares,
        *ratios,
    )
    tables = (phases, results.Table("the ring and the memory", ("what", "figure"), sums))
    # The quick version is too small for the others.
    claims = goals(scaled)[:2] if is_quick else goals(scaled)
    return results.Results(1, sizes, claims, tables, figures=asdict(scaled))


def goals(scaled: Scaled) -> tuple[results.Claim, ...]:
    """Return the goals: speed of events and look-ups, memory of a model, evenness."""
    slowest = min(scaled.phases, key=lambda phase: phase.per_s)
    return (
        results.at_least(
            f"events a second, slowest phase ({slowest.name})", slowest.per_s, "", EVENTS_PER_S_MIN
        ),
        results.at_least("models' homes a second", scaled.homes_per_s, "", HOMES_PER_S_MIN),
        results.at_most(
            "memory of a registered model in the controller",
            scaled.bytes_a_model,
            "bytes",
            BYTES_A_MODEL_MAX,
        ),
        results.at_most(
            "busiest worker's models, × the mean",
            scaled.imbalances["models"],
            "",
            MODELS_IMBALANCE_MAX,
        ),
        *(growth.goals(scaled.steps) if scaled.steps else ()),
    )


def run(console: Console, args: argparse.Namespace, _folder: Path) -> results.Results:
    models = args.models or (10_000 if args.quick else 1_000_000)
    workers = args.workers or (200 if args.quick else 1_000)
    scaled = scale(console, models, workers)
    return summarise(
        scaled,
        {"models": models, "workers": workers, "copies reported": RESIDENT},
        is_quick=args.quick,
    )


def main() -> int:
    parser = program.parser(__doc__)
    parser.add_argument("--models", type=int, help="default: 1,000,000, quick 10,000")
    parser.add_argument("--workers", type=int, help="default: 1,000, quick 200")
    return program.main("scale", parser, run)


if __name__ == "__main__":
    sys.exit(main())
