"""The systems that bench/routing.py compares.

For each: how it starts with a folder of ONNX models, and what its callers must send along.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import environments, free_ports, meshes, served

OURS, BARE, ALONE = "meshserve", "bare grpc.aio", "onnxruntime in process"
MLSERVER, PYTRITON = "MLServer 1.7.1", "PyTriton 0.7"
RAY_DEFAULT, RAY_TUNED = "Ray Serve 2.60", "Ray Serve 2.60, tuned"
PEERS = Path(__file__).with_name("peers")
# Ray starts its workers at niceness 15: the load's own program would go before them, as it goes
# before no other system's processes.
RAY_FAIRLY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
RAY_TUNING = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
}


@dataclass(frozen=True)
class Running:
    """A started system; it may not answer yet."""

    served: served.Served
    endpoint: str
    is_ray: bool = False

    def metadata(self, model: str) -> dict[str, str]:
        """Return what a call for the model must carry beside its message."""
        return {"application": "pool", "multiplexed_model_id": model} if self.is_ray else {}


# (folder of models, folder for log and state) → the system, which stops with the block. Raises
# NotInstalled if it can't be had.
Start = Callable[[Path, Path], contextlib.AbstractContextManager[Running]]


@contextlib.contextmanager
def meshserve(models: Path, folder: Path) -> Iterator[Running]:
    """Start a whole mesh with one worker, because one model has one home."""
    entries = [{"name": path.stem, "uri": str(path)} for path in sorted(models.glob("*.onnx"))]
    with meshes.up(folder, meshes.pool(1, "1GiB"), models=entries) as mesh:
        yield Running(mesh.system, mesh.endpoint)


@contextlib.contextmanager
def _peer(
    python: Path, program: str, models: Path, folder: Path, **environment: str
) -> Iterator[Running]:
    port = free_ports.free_port()
    command: list[str | Path] = [python, PEERS / f"{program}.py", models, str(port)]
    with served.serving(command, folder / f"{program}.log", **environment) as system:
        yield Running(system, f"127.0.0.1:{port}")


@contextlib.contextmanager
def bare(models: Path, folder: Path) -> Iterator[Running]:
    """Start a server without routing, in our own environment and with its libraries."""
    with _peer(Path(sys.executable), "bare", models, folder) as running:
        yield running


@contextlib.contextmanager
def mlserver(models: Path, folder: Path) -> Iterator[Running]:
    """Start MLServer without worker processes."""
    with _peer(
        environments.make_environment(environments.MLSERVER), "mlserver_onnx", models, folder
    ) as running:
        yield running


@contextlib.contextmanager
def pytriton(models: Path, folder: Path) -> Iterator[Running]:
    """Start PyTriton."""
    with _peer(
        environments.make_environment(environments.PYTRITON), "pytriton_onnx", models, folder
    ) as running:
        yield running


@contextlib.contextmanager
def _ray_serve(models: Path, folder: Path, settings: Mapping[str, str]) -> Iterator[Running]:
    python = environments.make_environment(environments.RAY_SERVE)
    # Replicas import the messages' modules by name.
    path = f"{environments.RAY_SERVE.generated}:{PEERS}"
    with _peer(
        python, "ray_serve_onnx", models, folder, PYTHONPATH=path, **RAY_FAIRLY, **settings
    ) as running:
        yield Running(running.served, running.endpoint, is_ray=True)


def ray_default(models: Path, folder: Path) -> contextlib.AbstractContextManager[Running]:
    """Start Ray Serve as it comes."""
    return _ray_serve(models, folder, {})


def ray_tuned(models: Path, folder: Path) -> contextlib.AbstractContextManager[Running]:
    """Start Ray Serve with every setting that its documentation gives for throughput."""
    return _ray_serve(models, folder, RAY_TUNING)


STARTS: dict[str, Start] = {
    OURS: meshserve,
    BARE: bare,
    MLSERVER: mlserver,
    PYTRITON: pytriton,
    RAY_DEFAULT: ray_default,
    RAY_TUNED: ray_tuned,
}
