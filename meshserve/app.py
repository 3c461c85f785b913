"""The composition root: the only file that builds the real parts and joins them; and how a mesh begins, is found again, and ends."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

from meshserve import config, errors, logs
from meshserve.cluster import controller_process, ray_cluster, session
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import desired, llm_spec, model
from meshserve.gateway import gateway
from meshserve.llm import engine_lookup, llm_server
from meshserve.protocol import paths
from meshserve.registry import sql_registry
from meshserve.storage import artifact_store, repository_watch
from meshserve.worker import worker

POLL_S = 0.1
WATCH_S = 1.0
HEALTH_S = 5.0
REASON_MAX = 300
READY_S = 120.0
DRAIN_S = 90.0
LOG_NAME_MAX = 60
VLLM = "vllm"
MESH_FILE = "mesh.json"


# Parts, each built inside the process that holds it


class CacheLimits(NamedTuple):
    """The folder of fetched artifacts, how much it may hold, and how big one of them may be."""

    path: str
    size_bytes_max: int
    artifact_bytes_max: int


def build_worker(
    logs_dir: str, address: model.ServerAddress, settings: desired.WorkerSettings
) -> worker.PoolWorker:
    """A pool worker with its storage."""
    logs.to_file(logs_dir, address.id)
    return worker.PoolWorker(
        address,
        settings,
        artifact_store.ArtifactStore(
            settings.cache_path, settings.cache_bytes_max, settings.artifact_bytes_max
        ),
    )


def build_gateway(logs_dir: str, run_dir: str) -> gateway.NodeGateway:
    """A node's gateway."""
    logs.to_file(logs_dir, "gateway")
    return gateway.NodeGateway(run_dir)


async def build_llm_server(
    logs_dir: str,
    cache: CacheLimits,
    address: model.ServerAddress,
    spec: llm_spec.LlmSpec,
    backend: llm_spec.ExecutorBackend,
) -> llm_server.LlmServer:
    """One replica of an LLM, its weights and adapters on this node. Raises LoadFailed where they can't be had."""
    logs.to_file(logs_dir, address.id.replace("/", "-")[-LOG_NAME_MAX:])
    make = engine_lookup.find(spec.runtime)
    fetched = functools.cache(lambda: artifact_store.ArtifactStore(*cache))
    adapters = {adapter.name: await _weights(fetched, adapter.uri) for adapter in spec.adapters}
    weights = await _weights(fetched, spec.uri)
    order = llm_engine.EngineOrder(spec, weights, adapters, backend, address.run_dir)
    return llm_server.LlmServer(address, order, make)


async def _weights(fetched: Callable[[], artifact_store.ArtifactStore], uri: str) -> str:
    """Where an engine finds them: a local folder as it is, a name at Hugging Face for the engine to fetch, all else from the cache."""
    scheme, separator, name = uri.partition("://")
    if not separator:
        return uri
    if scheme.lower() == "hf":
        return name
    artifact = await fetched().fetch(uri, "")
    fetched().hold(artifact)
    return str(artifact.path)


def build_control_plane(
    plan: controller_process.ControllerPlan,
) -> controller_process.HostedControlPlane:
    """The control plane with its registry, its repositories and its port to Ray."""
    logs.to_file(plan.logs_dir, "controller")
    read = config.parse(json.loads(plan.document))
    cache = CacheLimits(str(read.cache_path), read.cache.size, read.cache.artifact_bytes_max)
    makers = ray_cluster.Makers(
        worker=functools.partial(build_worker, plan.logs_dir),
        gateway=functools.partial(build_gateway, plan.logs_dir),
        replica=functools.partial(build_llm_server, plan.logs_dir, cache),
        run_dir=plan.run_dir,
        host=plan.host,
    )
    kept = sql_registry.SqlRegistry(plan.registry_url)
    outside = controller_process.ControllerParts(
        ray_cluster.RayCluster(makers), kept, repository_watch.FolderWatch(), kept.close
    )
    return controller_process.HostedControlPlane(plan, outside)


# A mesh as its user sees it


@dataclass(frozen=True, slots=True)
class StartProgress:
    """How far a mesh has come: `done` of `total` of a step; steps are ray, controller, workers, gateway, models, llms."""

    step: str
    done: int
    total: int
    detail: str = ""


class RunningMesh:
    """A mesh that this process began. Leaving the context drains and ends it."""

    def __init__(
        self, endpoint: str, controller: session.ControllerHandle, mesh_file: Path, run_dir: Path
    ) -> None:
        self.endpoint = endpoint
        self._controller = controller
        self._mesh_file = mesh_file
        self._run_dir = run_dir

    def wait(self) -> None:
        """Return when somebody else has ended the mesh."""
        while session.find_controller() is not None:
            time.sleep(WATCH_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Answer what was accepted, end everything, and remove what was only for this mesh."""
        try:
            self._controller.drain(DRAIN_S)
        finally:
            session.end()
            _remove((self._mesh_file, self._run_dir))

    def leave(self) -> None:
        """Leave it running on the cluster that it joined, held by no process of this machine."""
        _note(self._mesh_file, {**json.loads(self._mesh_file.read_text()), "pid": 0})
        session.end()


def up(
    read: config.Config,
    config_path: str,
    address: str | None,
    on_progress: Callable[[StartProgress], None],
) -> RunningMesh:
    """Bring a mesh up, on a Ray cluster of its own or on the one at `address`; returns when it is ready. Raises what kept it from that."""
    if address is None:
        _require_engines(read)
    run_dir = Path(tempfile.mkdtemp(prefix="meshserve-"))
    mesh_file = read.state_dir / MESH_FILE
    on_progress(StartProgress("ray", 0, 1))
    try:
        if address is None:
            session.begin(str(run_dir / "ray"))
        else:
            session.join(address)
        on_progress(StartProgress("ray", 1, 1))
        on_progress(StartProgress("controller", 0, 1))
        plan = _plan(read, run_dir, is_joined=address is not None)
        controller = session.start_controller(functools.partial(build_control_plane, plan))
        mesh = RunningMesh(_reachable(read.gateway.listen), controller, mesh_file, run_dir)
    except BaseException:
        session.end()
        _remove((run_dir,))
        raise
    try:
        _wait_until_ready(controller, on_progress)
        _note(
            mesh_file,
            {
                "endpoint": mesh.endpoint,
                "pid": os.getpid(),
                "config": str(Path(config_path).absolute()),
            },
        )
    except BaseException:
        mesh.end()
        raise
    return mesh


def _require_engines(read: config.Config) -> None:
    """On this machine alone: the nodes of another cluster may have what is not here."""
    is_needed = any(each.runtime == VLLM for each in read.llms)
    if is_needed and importlib.util.find_spec(VLLM) is None:
        raise errors.MissingExtra(
            "LLMs need vLLM: pip install 'meshserve[llm]' (NVIDIA GPUs) or 'meshserve[llm-cpu]' (none), not both"
        )


def _plan(
    read: config.Config, run_dir: Path, *, is_joined: bool
) -> controller_process.ControllerPlan:
    # The controller removes its folder when it ends; a Ray of our own, which is in `run_dir` too, ends later.
    read.state_dir.mkdir(parents=True, exist_ok=True)
    return controller_process.ControllerPlan(
        document=json.dumps(config.document(read)),
        registry_url=read.registry_url,
        state_dir=str(read.state_dir),
        logs_dir=str(read.state_dir / "logs"),
        run_dir=str(run_dir if is_joined else run_dir / "run"),
        host="" if is_joined else "127.0.0.1",
    )


def _wait_until_ready(
    controller: session.ControllerHandle, on_progress: Callable[[StartProgress], None]
) -> None:
    end_s = time.monotonic() + READY_S
    while True:
        status = _status(controller, end_s)
        if status is not None:
            for progress in _progress(status):
                on_progress(progress)
            if status["state"] == "ready":
                return
        if time.monotonic() > end_s:
            raise errors.Unavailable(
                f"the mesh is not ready after {READY_S:g} s{_troubles(status)}"
            )
        time.sleep(POLL_S)


def _status(controller: session.ControllerHandle, end_s: float) -> dict[str, Any] | None:
    try:
        return controller.status(READY_S)
    except session.NoAnswer:
        if time.monotonic() > end_s or session.find_controller() is None:
            raise
        return None


def _progress(status: dict[str, Any]) -> list[StartProgress]:
    workers = [worker for pool in status["pools"] for worker in pool["workers"]]
    gateways = status["gateways"]
    return [
        StartProgress("controller", 1, 1),
        StartProgress("workers", sum(each["state"] == "ready" for each in workers), len(workers)),
        StartProgress(
            "gateway", sum(each["state"] == "ready" for each in gateways), max(1, len(gateways))
        ),
        StartProgress("models", status["models"]["registered"], status["models"]["registered"]),
        *_llm_progress(status["llms"]),
    ]


def _llm_progress(llms: list[dict[str, Any]]) -> list[StartProgress]:
    """How many LLMs serve of those that always shall. None of them is waited for: an engine takes its time, or has no GPU yet."""
    wanted = [each for each in llms if each["replicas_min"]]
    asleep = len(llms) - len(wanted)
    detail = f"{asleep} on demand" if asleep else ""
    return (
        [
            StartProgress(
                "llms", sum(each["state"] == "ready" for each in wanted), len(wanted), detail
            )
        ]
        if llms
        else []
    )


def _troubles(status: dict[str, Any] | None) -> str:
    if status is None:
        return ": the controller does not answer"
    parts = [
        *(worker for pool in status["pools"] for worker in pool["workers"]),
        *status["gateways"],
    ]
    reasons = [
        f"{each.get('id', 'gateway')}: {each['reason'] or each['state']}"
        for each in parts
        if each["state"] != "ready"
    ]
    return "".join(f"; {reason}" for reason in reasons)


def _reachable(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '', '[::]') else host}:{port}"


def _note(mesh_file: Path, where: dict[str, Any]) -> None:
    """Say where the mesh is, for commands to come; `pid` 0 is a mesh that no process of this machine holds."""
    fresh = mesh_file.with_suffix(".new")
    fresh.write_text(json.dumps(where))
    fresh.replace(mesh_file)


def _remove(paths: tuple[Path, ...]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


# A mesh that runs already


def running(state_dir: Path) -> str | None:
    """Where the mesh that was started with this state directory answers, if it does."""
    noted = _noted(state_dir)
    if noted is None:
        return None
    return str(noted["endpoint"]) if _answers(noted["endpoint"]) else None


def _answers(endpoint: str) -> bool:
    try:
        return not httpx.get(endpoint + paths.HEALTHZ, timeout=HEALTH_S).is_client_error
    except httpx.TransportError:
        return False


def _noted(state_dir: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((state_dir / MESH_FILE).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return found


def _headers(key: str) -> dict[str, str]:
    key = key or os.environ.get("MESHSERVE_API_KEY", "")
    return {"authorization": f"Bearer {key}"} if key else {}


def starting_llms(endpoint: str, read: config.Config) -> list[str]:
    """The LLMs that shall always run and don't yet, as far as the mesh tells."""
    try:
        answer = httpx.get(
            f"{endpoint}{paths.MESH_V1}status", headers=_headers(_admin_key(read)), timeout=HEALTH_S
        ).raise_for_status()
        return [
            each["name"]
            for each in answer.json()["llms"]
            if each["replicas_min"] and each["state"] != "ready"
        ]
    except (httpx.HTTPError, json.JSONDecodeError):
        return []


def _admin_key(read: config.Config) -> str:
    return next((key.key for key in read.api_keys() if key.admin), "")


def apply(endpoint: str, read: config.Config) -> list[str]:
    """Have the mesh follow the configuration; returns what that changed. Raises what is wrong with it."""
    said = _post(endpoint, "apply", _admin_key(read), config.document(read))
    return list(said["changes"])


def _post(endpoint: str, order: str, key: str = "", body: object = None) -> dict[str, Any]:
    """What the mesh answers. Raises Unavailable where there is none, ConfigInvalid for a wrong body, MeshError where it refuses."""
    try:
        answer = httpx.post(
            f"{endpoint}{paths.MESH_V1}{order}", json=body, headers=_headers(key), timeout=READY_S
        )
        said: dict[str, Any] = answer.json()
    except httpx.HTTPError as error:
        raise errors.Unavailable(f"the mesh at {endpoint} does not answer: {error}") from error
    except json.JSONDecodeError:
        raise errors.Unavailable(
            f"what answers at {endpoint} is no mesh: {answer.status_code} {answer.text[:REASON_MAX]}"
        ) from None
    if answer.is_error:
        kind = (
            errors.ConfigInvalid
            if answer.status_code == httpx.codes.BAD_REQUEST
            else errors.MeshError
        )
        raise kind(str(said.get("error", answer.text)))
    return said


def down(state_dir: Path, endpoint: str | None) -> None:
    """End the mesh: the process that holds it is told to, or the controller of one that nobody holds.

    Returns when the process has ended, or when the mesh takes nothing more and ends by itself.
    """
    noted = _noted(state_dir)
    pid = noted["pid"] if noted and endpoint in (None, noted["endpoint"]) else 0
    there = endpoint or (noted["endpoint"] if noted else "")
    if pid:
        _end_process(pid)
    elif there:
        _post(there, "drain")
        _wait_until_closed(there)
    else:
        raise errors.Unavailable("no mesh was started from this machine")
    if noted and there == noted["endpoint"]:
        _remove((state_dir / MESH_FILE,))


def _wait_until_closed(endpoint: str) -> None:
    end_s = time.monotonic() + DRAIN_S
    while _answers(endpoint):
        if time.monotonic() > end_s:
            raise errors.Unavailable(f"the mesh at {endpoint} has not ended within {DRAIN_S:g} s")
        time.sleep(POLL_S)


def _end_process(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        has_ended, _, _ = select.select([process], [], [], DRAIN_S)
    finally:
        os.close(process)
    if not has_ended:
        raise errors.Unavailable(f"process {pid} has not ended within {DRAIN_S:g} s")


def spawn_detached(config_path: str, address: str | None) -> str:
    """Bring a mesh up beside this process; returns where it answers once it is ready. Raises what the start said where it failed."""
    read = config.load(config_path)
    if address is not None:
        mesh = up(read, config_path, address, lambda _: None)
        mesh.leave()
        return mesh.endpoint
    log = read.state_dir / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        command = [sys.executable, "-m", "meshserve.cli", "up", config_path]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    while True:
        noted = _noted(read.state_dir)
        if noted is not None and noted["pid"] == process.pid:
            return str(noted["endpoint"])
        if process.poll() is not None:
            raise errors.Unavailable(f"the mesh did not start:\n{log.read_text().strip()}")
        time.sleep(POLL_S)
