"""One Ray cluster for all tests of the folder, and a mesh's port to it with nothing in it."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve.cluster import ray_cluster, session
from meshserve.core.values import desired, model
from meshserve.launch import gateway_start, worker_start
from meshserve.logs import log_files
from tests import support
from tests.cluster import engines
from tests.contracts import cluster as contract
from tests.faults import traffic

SECRET = "of the tests"


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Any]:
    """For Unix sockets: their paths have no room for pytest's folders."""
    path = tempfile.mkdtemp(prefix="t", dir="/tmp")
    yield Path(path)
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def ray_session(short_folder: Any) -> Iterator[Any]:
    # Ray believes this number; no test uses a GPU
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 2}')
        session.begin(str(short_folder / "ray"))
    yield
    session.end()


@pytest.fixture
def run_dir(short_folder: Any) -> Iterator[Any]:
    path = Path(tempfile.mkdtemp(prefix="run", dir=short_folder))
    yield str(path)
    # The last process of a mesh to stop has removed it.
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    return desired.WorkerSettings(
        memory=model.Footprint(1 << 30), cache_path=str(tmp_path / "cache")
    )


@pytest.fixture
def makers(run_dir: str, tmp_path: Path) -> Any:
    logs = log_files.LogPlan(str(tmp_path / "logs"))
    return ray_cluster.Makers(
        worker=functools.partial(worker_start.build_worker, logs),
        gateway=functools.partial(gateway_start.build_gateway, logs, SECRET),
        replica=engines.make,
        run_dir=run_dir,
        secret=SECRET,
    )


@pytest.fixture
async def cluster(ray_session: Any, makers: Any) -> AsyncIterator[Any]:  # noqa: ARG001 - it must run
    cluster = ray_cluster.RayCluster(makers)
    yield cluster
    for worker in await cluster.living_workers():
        await cluster.stop_worker(worker.worker_id)
    for node in await cluster.nodes():
        await cluster.stop_gateway(node.id)


@pytest.fixture
async def stage(cluster: Any, settings: Any, tmp_path: Path) -> Any:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    good = traffic.write_model(tmp_path / "good.onnx", 2)
    good_spec, broken_spec = (
        model.ModelSpec(model.ModelId(path.stem), str(path), runtime="onnx")
        for path in (good, broken)
    )
    listen = f"127.0.0.1:{support.free_port()}"
    return contract.Stage(cluster, settings, good_spec, broken_spec, listen)
