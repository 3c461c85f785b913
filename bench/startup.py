"""Measure `meshserve up` to the first answer: the quick start's models, and one tiny model.

Each start is a new mesh with empty state, on a Ray of its own; the kernel's page cache is warm.
Beside it stands what Ray alone takes from the start of Python to the answer of one task.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml
from rich.console import Console

from bench import demo, meshes, program, results, samples, served, tiny

ANSWER_S_MAX, QUICK_RATIO = 10.0, 2.8
START_S_MAX = 120
TINY, QUICKSTART, RAY = "one tiny ONNX model", "configs/quickstart.yaml", "Ray alone, one task"
ANSWER = "the task has answered"
ACTOR = f"""
import ray

ray.init(include_dashboard=False, log_to_driver=False)
print(ray.get(ray.remote(lambda: {ANSWER!r}).remote()), flush=True)
ray.shutdown()
"""


@dataclass(frozen=True)
class Started:
    """Seconds from the start: to its ready line, and to the first answer."""

    ready_s: float
    answer_s: float


@dataclass(frozen=True)
class Model:
    """The model that is asked, and one row for it."""

    name: str
    tensor: str
    row: tuple[float, ...]


def is_answering(endpoint: str, model: Model) -> bool:
    """Tell whether the model answers over REST."""
    tensor = {
        "name": model.tensor,
        "datatype": "FP32",
        "shape": [1, len(model.row)],
        "data": list(model.row),
    }
    with contextlib.suppress(httpx.TransportError):
        return httpx.post(
            f"http://{endpoint}/v2/models/{model.name}/infer", json={"inputs": [tensor]}, timeout=30
        ).is_success
    return False


def time_start(folder: Path, document: dict[str, Any], model: Model) -> Started:
    """Bring a mesh up with these sections and stop it."""
    folder.mkdir()
    sections = {key: value for key, value in document.items() if key != "pools"}
    began_s = time.monotonic()
    with meshes.up(folder, document["pools"], **sections) as mesh:
        mesh.system.wait_until(lambda: meshes.is_ready(mesh.endpoint), START_S_MAX)
        ready_s = time.monotonic() - began_s
        mesh.system.wait_until(lambda: is_answering(mesh.endpoint, model), START_S_MAX)
        return Started(ready_s, time.monotonic() - began_s)


def quickstart(folder: Path) -> tuple[dict[str, Any], Model]:
    """Return the quick start's own pools and models, trained here."""
    place = demo.Place(folder / "models", demo.QUICKSTART)
    demo.train(Console(quiet=True), place)
    document = yaml.safe_load(demo.QUICKSTART.read_text())
    for entry in document["models"]:
        entry["uri"] = str(place.models / Path(entry["uri"]).relative_to("../models"))
    pixels = tuple(float(value) for value in samples.digits().held_x[0])
    return {"pools": document["pools"], "models": document["models"]}, Model(
        "digits", "pixels", pixels
    )


def one_tiny(folder: Path) -> tuple[dict[str, Any], Model]:
    """Return one worker with one model."""
    tiny.write(folder / "tiny.onnx", 1)
    models = [{"name": "tiny", "uri": str(folder / "tiny.onnx")}]
    return {"pools": meshes.pool(1, "1GiB"), "models": models}, Model(
        "tiny", "x", tuple(map(float, np.linspace(-1, 1, tiny.INPUTS)))
    )


def ray_alone(folder: Path) -> Started:
    """Measure Ray alone: no program on Ray can be quicker."""
    folder.mkdir()
    began_s = time.monotonic()
    with served.serving([sys.executable, "-c", ACTOR], folder / "ray.log") as system:
        system.wait_until(lambda: ANSWER in system.log.read_text(), START_S_MAX)
        took_s = time.monotonic() - began_s
    return Started(took_s, took_s)


def middle(several: list[Started]) -> Started:
    """Return the medians."""
    return Started(
        statistics.median(start.ready_s for start in several),
        statistics.median(start.answer_s for start in several),
    )


def summarise(rounds: list[dict[str, Started]], *, is_quick: bool) -> results.Results:
    """Return the table, the chart and the goal."""
    middles = {what: middle([one_round[what] for one_round in rounds]) for what in rounds[0]}
    slowest = {what: max(one_round[what].answer_s for one_round in rounds) for what in rounds[0]}
    rows = tuple(
        (
            what,
            results.figure(start.ready_s),
            results.figure(start.answer_s),
            results.figure(slowest[what]),
        )
        for what, start in middles.items()
    )
    table = results.Table(
        "from the start to the first answer",
        ("what", "ready s", "first answer s", "slowest s"),
        rows,
    )
    if is_quick:
        peer = (RAY, middles[RAY].answer_s)
        claim = results.times_at_most(
            f"first answer, {TINY}", "s", middles[TINY].answer_s, peer, QUICK_RATIO
        )
    else:
        claim = results.at_most(
            f"`meshserve up {QUICKSTART}` to the first answer",
            middles[QUICKSTART].answer_s,
            "s",
            ANSWER_S_MAX,
        )
    bars = tuple(results.Bar(what, start.answer_s, what != RAY) for what, start in middles.items())
    chart = results.Chart("startup", "From the start to the first answer", "s", bars)
    figures = {"rounds": [{what: asdict(start) for what, start in one.items()} for one in rounds]}
    return results.Results(len(rounds), {}, (claim,), (table,), (chart,), figures)


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    prepared = {TINY: one_tiny(folder)} | ({} if args.quick else {QUICKSTART: quickstart(folder)})
    rounds, count = [], args.rounds or (1 if args.quick else 5)
    for number in range(1, count + 1):
        seen = {RAY: ray_alone(folder / f"ray-{number}")}
        for place, (what, (document, model)) in enumerate(prepared.items()):
            seen[what] = time_start(folder / f"mesh-{number}-{place}", document, model)
        rounds.append(seen)
        console.print(
            f"{number} of {count}: "
            + ", ".join(f"{what} {start.answer_s:.1f} s" for what, start in seen.items()),
            highlight=False,
        )
    return summarise(rounds, is_quick=args.quick)


def main() -> int:
    parser = program.parser(__doc__)
    parser.add_argument("--rounds", type=int, help="default: 5, quick 1")
    return program.main("startup", parser, run)


if __name__ == "__main__":
    sys.exit(main())
