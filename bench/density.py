"""Count the models that fit into one worker of 1, 2 and 4 GiB, of five kinds.

Each figure has a worker of its own, filled until a model must be evicted for another; it knows
100,000 names. Where there are too few models to fill it, the number is computed from what each
takes, and marked ≈. Beside it stands MLServer with the same ONNX models.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from bench import environments, families, filling, program, results, served, solo, systems, tiny

GIB = 1 << 30
RESIDENT_MIN, BYTES_MAX_QUICK = 30_000, 100 * 1024
FILL_S_MAX, READY_S_MAX = 1800, 300
CHECKED = 3


@dataclass(frozen=True)
class Plan:
    """Files of each family at most, budgets, names, and models of MLServer (few, many)."""

    models: Mapping[str, int]
    budgets_gib: tuple[float, ...]
    registered: int
    peer: tuple[int, int]


WHOLE = Plan(
    {
        families.TINY.name: 80_000,
        families.SKLEARN.name: 1000,
        families.XGBOOST.name: 1000,
        families.MEDIUM.name: 450,
        families.BIG.name: 12,
    },
    (1, 2, 4),
    100_000,
    (100, 1100),
)
QUICK = Plan(
    {
        families.TINY.name: 800,
        families.SKLEARN.name: 100,
        families.XGBOOST.name: 100,
        families.MEDIUM.name: 5,
    },
    (1,),
    5_000,
    (0, 0),
)


@dataclass(frozen=True)
class Peer:
    """What one more model of a kind costs MLServer."""

    empty_bytes: float
    bytes_each: float
    load_ms: float

    def room_for(self, memory_bytes: int) -> int:
        """Return how many would fit into a budget."""
        return int((memory_bytes - self.empty_bytes) / self.bytes_each)


Fillings = dict[str, dict[float, filling.Filled]]


def fill_worker(what: str, folder: Path, budget_gib: float, registered: int) -> filling.Filled:
    """Fill one worker in a process of its own. Raises WrongAnswer with its last line."""
    command = served.own_program("filling", folder, str(int(budget_gib * GIB)), str(registered))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=FILL_S_MAX,
        check=False,
        env=solo.environment(),
    )
    if done.returncode:
        raise program.WrongAnswer(
            f"{what} in {budget_gib} GiB: {(done.stderr.strip() or 'it ended').splitlines()[-1]}"
        )
    return filling.Filled(**json.loads(done.stdout.splitlines()[-1]))


def fill_all(console: Console, plan: Plan, folder: Path) -> Fillings:
    """Fill every budget with every family. Files and caches of a family go before the next one."""
    fillings: Fillings = {}
    for name, count in plan.models.items():
        with write_family(families.FAMILIES[name], folder / "family", count) as place:
            fillings[name] = {
                gib: fill_worker(name, place, gib, plan.registered) for gib in plan.budgets_gib
            }
        last = fillings[name][plan.budgets_gib[-1]]
        console.print(
            f"{name}: {last.resident:,} in memory, {last.bytes_each / 1024:,.1f} KiB each",
            highlight=False,
        )
    return fillings


@contextlib.contextmanager
def write_family(family: families.Family, place: Path, count: int) -> Iterator[Path]:
    """Write models of the family, rows for them, and the library's own answers for some."""
    (place / "models").mkdir(parents=True)
    (place / "answers").mkdir()
    try:
        paths = list(family.write(place / "models", count))
        for number in np.linspace(0, count - 1, CHECKED, dtype=int):
            rows, answer = family.ask(paths[number])
            np.save(place / "rows.npy", rows)
            np.save(place / "answers" / f"{number}.npy", answer)
        yield place
    finally:
        shutil.rmtree(place)


def measure_peer(folder: Path, counts: tuple[int, int]) -> Peer:
    """Compare MLServer with few and with many models. Raises NotInstalled."""
    (few, few_bytes, few_s), (many, many_bytes, many_s) = (
        start_mlserver(folder, count) for count in counts
    )
    bytes_each = (many_bytes - few_bytes) / (many - few)
    return Peer(few_bytes - few * bytes_each, bytes_each, (many_s - few_s) / (many - few) * 1e3)


def start_mlserver(folder: Path, count: int) -> tuple[int, int, float]:
    """Start MLServer and ask each model once; return their number, memory, seconds to ready."""
    place = folder / f"peer-{count}"
    (place / "models").mkdir(parents=True)
    names = [path.stem for path in families.TINY.write(place / "models", count)]
    began_s = time.monotonic()
    with systems.mlserver(place / "models", place) as running:
        with contextlib.closing(triton.InferenceServerClient(running.endpoint)) as client:
            running.served.wait_until(lambda: answers(client, names[-1]), READY_S_MAX)
            took_s = time.monotonic() - began_s
            for name in names:
                answers(client, name)
        return count, running.served.memory_bytes(), took_s


def answers(client: triton.InferenceServerClient, name: str) -> bool:
    x = np.zeros((1, tiny.INPUTS), np.float32)
    given = triton.InferInput("x", list(x.shape), "FP32")
    given.set_data_from_numpy(x)
    with contextlib.suppress(InferenceServerException):
        return client.infer(name, [given]).as_numpy("y") is not None
    return False


def cells(what: str, by_budget: Mapping[float, filling.Filled]) -> tuple[str, ...]:
    measured = by_budget[max(by_budget)]
    counts = (
        f"{'' if one.is_full else '≈ '}{one.room_for(int(gib * GIB)):,}"
        for gib, one in by_budget.items()
    )
    kib = (measured.private_bytes_each / 1024, measured.mapped_bytes_each / 1024)
    return (what, *counts, *map(results.figure, kib), *map(results.figure, measured.load_ms))


def table(
    plan: Plan, fillings: Fillings, beside: Peer | None, missing: dict[str, str]
) -> results.Table:
    head = (
        "model",
        *(f"in {gib:g} GiB" for gib in plan.budgets_gib),
        "KiB private each",
        "KiB mapped",
        "load p50 ms",
        "p99 ms",
    )
    rows = [cells(name, by_budget) for name, by_budget in fillings.items()]
    if beside is not None:
        counts = (f"≈ {beside.room_for(int(gib * GIB)):,}" for gib in plan.budgets_gib)
        figures = (beside.bytes_each / 1024, 0, beside.load_ms, float("nan"))
        rows.append(
            (f"{families.TINY.name}: {systems.MLSERVER}", *counts, *map(results.figure, figures))
        )
    return results.Table("models resident in one worker's budget", head, tuple(rows), missing)


def claims(plan: Plan, fillings: Fillings, *, is_quick: bool) -> tuple[results.Claim, ...]:
    """Return the goals of the biggest budget."""
    gib, one = max(fillings[families.TINY.name].items())
    if is_quick:
        return (
            results.at_most(
                "one more tiny model in memory", one.bytes_each, "bytes", BYTES_MAX_QUICK
            ),
        )
    return (
        results.at_least(
            f"tiny models resident in one worker of {gib:g} GiB",
            one.room_for(int(gib * GIB)),
            "",
            RESIDENT_MIN,
        ),
        results.at_least("models registered meanwhile", one.registered, "", plan.registered),
    )


def summarise(
    plan: Plan, fillings: Fillings, beside: Peer | None, missing: dict[str, str], *, is_quick: bool
) -> results.Results:
    """Return the table, the chart and the goals."""
    gib = plan.budgets_gib[-1]
    bars = [
        results.Bar(name, by_budget[gib].room_for(int(gib * GIB)), is_ours=True)
        for name, by_budget in fillings.items()
    ]
    if beside is not None:
        bars.append(
            results.Bar(
                f"{families.TINY.name}: {systems.MLSERVER}", beside.room_for(int(gib * GIB))
            )
        )
    chart = results.Chart(
        "density", f"Models in memory in {gib:g} GiB", "models", tuple(bars), is_log=True
    )
    by_name = {
        name: {f"{gib:g} GiB": asdict(one) for gib, one in by_budget.items()}
        for name, by_budget in fillings.items()
    }
    figures = by_name | ({systems.MLSERVER: asdict(beside)} if beside else {})
    tables = (table(plan, fillings, beside, missing),)
    return results.Results(
        1, asdict(plan), claims(plan, fillings, is_quick=is_quick), tables, (chart,), figures
    )


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    plan = QUICK if args.quick else WHOLE
    if args.families:
        plan = Plan(
            {name: plan.models[name] for name in args.families},
            plan.budgets_gib,
            plan.registered,
            plan.peer,
        )
    fillings, beside = fill_all(console, plan, folder), None
    missing = {
        systems.MLSERVER
        + " with scikit-learn, XGBoost and torch": "its environment has ONNX Runtime alone"
    }
    if plan.peer[1]:
        try:
            beside = measure_peer(folder, plan.peer)
        except (environments.NotInstalled, served.NotServing) as failure:
            missing[systems.MLSERVER] = f"not installed: {failure}"
    return summarise(plan, fillings, beside, missing, is_quick=args.quick)


def main() -> int:
    parser = program.parser(__doc__)
    parser.add_argument(
        "--families",
        nargs="+",
        choices=families.FAMILIES,
        help="only these; the first must be the tiny MLP",
    )
    return program.main("density", parser, run)


if __name__ == "__main__":
    sys.exit(main())
