"""Train sample models on real data, serve them, and ask them over gRPC and REST.

    python -m bench.demo train     # writes models/, in seconds
    python -m bench.demo serve     # starts a mesh, compares scores, serves until Ctrl-C

With `serve --once` the mesh ends after the comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import meshserve
from bench import samples, served
from meshserve import config, errors

HERE = Path(__file__).parent.parent
QUICKSTART = HERE / "configs" / "quickstart.yaml"
PROGRAM = Path(sys.executable).with_name("meshserve")
SCORE_TOLERANCE = 1e-6
READY_S = 180  # longer than `meshserve up` itself waits: its reason says more


@dataclass(frozen=True)
class Place:
    """The folder of the demo's models, state and log, and the configuration that it starts."""

    models: Path
    config: Path

    @property
    def held_out(self) -> Path:
        """The file of rows that no model was trained on, their truth and the answers in process."""
        return self.models / "heldout.npz"

    @property
    def log(self) -> Path:
        """The log of `meshserve up`."""
        return self.models / "meshserve.log"


@dataclass(frozen=True)
class Compared:
    """One model's scores on the held-out rows."""

    sample: samples.Sample
    rows: int
    in_process: float
    over_grpc: float
    over_rest: float

    def is_equal(self) -> bool:
        """Tell whether all scores are equal up to rounding."""
        return (
            max(abs(self.over_grpc - self.in_process), abs(self.over_rest - self.in_process))
            <= SCORE_TOLERANCE
        )


def train(console: Console, place: Place) -> None:
    """Write every model, the held-out rows, their truth, and each library's own answers."""
    kept: dict[str, np.ndarray] = {}
    for sample in samples.SAMPLES:
        started_s = time.monotonic()
        path, rows = place.models / sample.path, sample.rows()
        path.parent.mkdir(parents=True, exist_ok=True)
        sample.train(rows, path)
        answers = sample.ask(path, rows.held_x)
        kept |= {
            f"{sample.name}/x": rows.held_x,
            f"{sample.name}/truth": rows.held_y,
            f"{sample.name}/answers": answers,
        }
        score, took_s = samples.score(answers, rows.held_y), time.monotonic() - started_s
        line = f"{shorten(path)}  score {score:.4f}  ({took_s:.1f} s)"
        console.print(f"trained {sample.name:<14} {line}", highlight=False)
    np.savez(place.held_out, allow_pickle=False, **kept)


def ask_rest(client: httpx.Client, model: str, x: np.ndarray) -> np.ndarray:
    """Return the model's first output over REST; `x` and the answer have their rows first."""
    signature = client.get(f"/v2/models/{model}").raise_for_status().json()
    described, wanted = signature["inputs"][0], signature["outputs"][0]["name"]
    tensor = {
        "name": described["name"],
        "datatype": described["datatype"],
        "shape": x.shape,
        "data": x.tolist(),
    }
    answer = (
        client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})
        .raise_for_status()
        .json()
    )
    output = next(tensor for tensor in answer["outputs"] if tensor["name"] == wanted)
    dtype = np.int64 if output["datatype"].startswith(("INT", "UINT")) else np.float64
    return np.array(output["data"], dtype).reshape(output["shape"])


def ask_grpc(client: meshserve.Client, model: str, x: np.ndarray) -> np.ndarray:
    """Return the model's first output by our client; `x` and the answer have their rows first."""
    first = client.metadata(model).outputs[0].name
    answer = client.predict(model, x, outputs=(first,))
    return answer if isinstance(answer, np.ndarray) else answer[first]


def first_prediction(endpoint: str, place: Place) -> None:
    """Ask the first model for its first row."""
    name = samples.SAMPLES[0].name
    with np.load(place.held_out) as kept, meshserve.Client(endpoint) as mesh:
        ask_grpc(mesh, name, kept[f"{name}/x"][:1])


def compare(endpoint: str, place: Place) -> list[Compared]:
    """Ask for every sample over both protocols."""
    compared = []
    with (
        np.load(place.held_out) as kept,
        meshserve.Client(endpoint) as mesh,
        httpx.Client(base_url=f"http://{endpoint}", timeout=60) as http,
    ):
        for sample in samples.SAMPLES:
            x, truth = kept[f"{sample.name}/x"], kept[f"{sample.name}/truth"]
            answers = (
                kept[f"{sample.name}/answers"],
                ask_grpc(mesh, sample.name, x),
                ask_rest(http, sample.name, x),
            )
            compared.append(
                Compared(sample, len(x), *(samples.score(answer, truth) for answer in answers))
            )
    return compared


def show(console: Console, compared: list[Compared]) -> None:
    drawn = Table(title="held-out rows: score in process and through the mesh", box=box.SIMPLE)
    for heading in ("model", "runtime"):
        drawn.add_column(heading)
    for heading in ("rows", "in process", "gRPC", "REST", "equal"):
        drawn.add_column(heading, justify="right")
    for scores in compared:
        figures = (scores.in_process, scores.over_grpc, scores.over_rest)
        drawn.add_row(
            scores.sample.name,
            scores.sample.runtime,
            str(scores.rows),
            *(f"{score:.6f}" for score in figures),
            "yes" if scores.is_equal() else "NO",
        )
    console.print(drawn)


def is_ready(endpoint: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://{endpoint}/readyz", timeout=5).is_success
    return False


def shorten(path: Path) -> Path:
    """Return the path as short as it can be typed here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def commands(endpoint: str, place: Place) -> str:
    """Return lines to copy: what to try next."""
    program, python = (shorten(path) for path in (PROGRAM, Path(sys.executable)))
    with np.load(place.held_out) as kept:
        row = [round(float(value), 3) for value in kept["iris/x"][0]]
    return f"""
curl -s http://{endpoint}/v1/models/iris:predict -d '{{"instances": [{row}]}}'

{python} -c 'import meshserve; print(meshserve.Client("{endpoint}").predict("iris", [{row}]))'

{program} models list --endpoint http://{endpoint}
"""


def is_taken(endpoint: str) -> bool:
    """Tell whether another server listens at the address and would answer in the mesh's place."""
    host, _, port = endpoint.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def serve(console: Console, place: Place, *, once: bool) -> int:
    """Return 0 if every score is equal and no process is left behind, else 1."""
    if not place.held_out.exists():
        console.print("no models yet: python -m bench.demo train")
        return 1
    endpoint = config.load(place.config).gateway.listen
    if is_taken(endpoint):
        console.print(
            f"{endpoint} is taken: stop what listens there, or change gateway.listen "
            f"in {shorten(place.config)}",
            highlight=False,
        )
        return 1
    console.print(
        f"\nmeshserve up {shorten(place.config)}  (its output: {shorten(place.log)})",
        highlight=False,
    )
    with served.serving(
        [PROGRAM, "up", place.config], place.log, MESHSERVE_HOME=str(place.models / ".meshserve")
    ) as mesh:
        is_equal = begin(console, place, endpoint, mesh)
        if is_equal and not once:
            console.print("Ctrl-C stops.")
            mesh.process.wait()
            console.print(f"meshserve ended by itself:\n{mesh.log_end()}", markup=False)
    return int(not is_equal or not once or bool(mesh.left))


def begin(console: Console, place: Place, endpoint: str, mesh: served.Served) -> bool:
    """Wait for the mesh, compare scores, show what to try; tell whether scores are equal."""
    started_s = time.monotonic()
    mesh.wait_until(lambda: is_ready(endpoint), READY_S)
    console.print(f"ready after {time.monotonic() - started_s:.1f} s", highlight=False)
    first_prediction(endpoint, place)
    console.print(f"first prediction after {time.monotonic() - started_s:.1f} s", highlight=False)
    compared = compare(endpoint, place)
    show(console, compared)
    is_equal = all(scores.is_equal() for scores in compared)
    if is_equal:
        console.print(
            f"serving gRPC and REST on {endpoint}; try, in another terminal:", highlight=False
        )
        console.print(commands(endpoint, place), highlight=False, markup=False, soft_wrap=True)
    return is_equal


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=HERE / "models",
        help="folder of the models, the mesh's state and its log",
    )
    parser.add_argument("--config", type=Path, default=QUICKSTART)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("train")
    steps.add_parser("serve").add_argument(
        "--once", action="store_true", help="stop after the comparison"
    )
    args = parser.parse_args()
    console, place = Console(), Place(args.models, args.config)
    if args.step == "train":
        train(console, place)
        return 0
    served.end_by_signals()
    try:
        return serve(console, place, once=args.once)
    except KeyboardInterrupt:
        console.print("stopped")
        return 0
    except (served.NotServing, errors.MeshError, httpx.HTTPError) as failure:
        console.print(f"demo: {failure}", markup=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
