"""Every socket and file of a running mesh, as another user of the machine meets them."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e import engines, running
from tests.faults import listening, traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 120.0
KEY = "the-admins"
KEYS = {"client": "tests", "key": KEY, "admin": True}
LOOPBACK = {"127.0.0.1"}

RAYS = {"gcs_server", "raylet", "meshserve", "ray::RuntimeEnvAgent"}
"""Processes with ports of Ray, besides `ray::…`, its workers: `meshserve` is `up` itself."""

PATHS = {
    "controller.sock",
    "default-0.sock",
    "any.sock",
    "envoy-admin.sock",
    "llm.sock",
    "node-grpc.sock",
    "node-http.sock",
    "envoy-keeper.sock",
    "e_parent",
    "e_child",
    "e_udp_parent",
    "e_udp_child",
    "plasma_store",
    "raylet",
}
"""The names of all Unix sockets of a mesh with one worker and one LLM; `e_…` are for the sockets
that one Envoy leaves to the next, `any` leads to any worker of a pool when all seem unhealthy."""

HEALTH = "/grpc.health.v1.Health/Check"
REFUSALS = {"UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE"}
MODEL = """
class Model:
    inputs = [("x", "FP32", [-1, 8])]
    outputs = [("y", "FP32", [-1, 8])]

    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


class Running(NamedTuple):
    """A mesh, and the folder of its temporary files."""

    mesh: running.Mesh
    folder: Path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A mesh of each kind of process, started by somebody whose files all may read and write."""
    tmp_path = tmp_path_factory.mktemp("sockets")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "model.py").write_text(MODEL)
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "weights.bin").write_text("any")
    own = {"name": "own", "uri": str(tmp_path / "own"), "runtime": "python", "trust": True}
    document = {
        "gateway": {"keys": [KEYS]},
        "pools": {"default": {"workers": 1, "memory": "1GiB", "isolate": "process"}},
        "models": [*traffic.models(tmp_path, 1), own],
        "llms": [{"name": "chat", "uri": str(weights), "runtime": "forking"}],
    }
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        mask = os.umask(0)
        try:
            variables: dict[str, Any] = {
                **engines.installed(tmp_path / "installed"),
                "TMPDIR": folder,
            }
            home = Path(folder) / "home"
            home.mkdir()
            with running.mesh(document, home=home, **variables) as mesh:
                os.umask(mask)
                mesh.http.headers["authorization"] = f"Bearer {KEY}"
                _use(mesh)
                yield Running(mesh, Path(folder))
        finally:
            os.umask(mask)


def _use(mesh: running.Mesh) -> None:
    """Have every kind of process and file made: loaded models, an LLM, an upload."""
    values = {"name": "x", "shape": [1, 8], "datatype": "FP32", "data": [1.0] * 8}
    for name in ("m0", "own"):
        mesh.http.post(f"/v2/models/{name}/infer", json={"inputs": [values]}).raise_for_status()
    content = base64.b64encode(Path(mesh.document["models"][0]["uri"]).read_bytes()).decode()
    upload = {"parameters": {"config": '{"backend": "onnxruntime"}', "file:1/model.onnx": content}}
    mesh.http.post("/v2/repository/models/sent/load", json=upload).raise_for_status()
    chat = {"model": "chat", "prompt": "x", "max_tokens": 1}
    mesh.http.post("/v1/completions", json=chat, timeout=LIMIT_S).raise_for_status()


def known(path: str) -> str:
    """Return the name of a Unix socket without what differs from mesh to mesh."""
    name = path if path.startswith("@") else Path(path).name
    name = re.sub(r"^(e_[a-z_]+)_\d+$", r"\1", name)
    return re.sub(r"^(llm|any)-[0-9a-f]+", r"\1", name)


def test_a_mesh_listens_on_nothing_unknown_and_only_the_gateway_leaves_the_machine(
    started: Running,
) -> None:
    met = listening.find(started.mesh.living())
    host, _, number = started.mesh.listen.partition(":")
    doors = {port for port in met.ports if (port.host, port.number) == (host, int(number))}
    assert doors, "the gateway listens"
    others = met.ports - doors
    names = {port.owner for port in others}
    assert {name for name in names if not name.startswith("ray::")} <= RAYS
    assert {port.host for port in others} == LOOPBACK
    assert {port.kind for port in others} <= {"tcp", "tcp6"}
    assert {known(path) for path in met.paths} == PATHS


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_without_a_key_is_refused_at_every_socket(started: Running) -> None:
    met = listening.find(started.mesh.living())
    ports = {(port.host, port.number) for port in met.ports}
    host, _, number = started.mesh.listen.partition(":")
    answers = stranger(sorted(ports), sorted(met.paths))
    assert {answers["paths"][path] for path in met.paths} == {"PermissionError"}
    door = answers["pages"].pop(f"{host}:{number}")
    assert door == dict.fromkeys(door, "401") | {"/": "200", "/healthz": "200"} | _open(door)
    calls = answers["calls"].pop(f"{host}:{number}")
    assert calls.pop(HEALTH) == "OK"
    assert "OK" not in calls.values()
    for port, codes in answers["calls"].items():
        pages = answers["pages"][port]
        # That of gRPC itself, which says no more than an open port does.
        health = codes.pop(HEALTH)
        assert health in REFUSALS | {"OK"}, port
        assert set(codes.values()) <= REFUSALS, (port, codes)
        assert set(pages.values()) <= {"401", "no HTTP/1.1"}, port
        # A port that knows none of the calls is no proof.
        assert "UNAUTHENTICATED" in codes.values() or "401" in pages.values(), port


def _open(door: dict[str, str]) -> dict[str, str]:
    """Return what is served under no path: whoever asks may know that."""
    return {page: status for page, status in door.items() if status == "404"}


def stranger(ports: list[tuple[str, int]], paths: list[str]) -> Any:
    """Return what another user meets at these sockets."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.stranger"],
        input=json.dumps({"ports": ports, "paths": paths}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_file_of_a_mesh_can_be_read_by_others_whatever_the_mask_was(started: Running) -> None:
    by_the_test = {started.mesh.home / "config.yaml", started.mesh.home / "up.out"}
    (run_dir,) = started.folder.glob("meshserve-*")
    assert is_private(run_dir)
    assert is_private(started.mesh.home)
    written = {*started.folder.rglob("*"), *in_shared_memory(started.mesh.living())}
    # Ray opens its folders to all on purpose; nobody else gets as far as to them.
    loose = {
        path
        for path in written - by_the_test
        if not is_private(path) and run_dir / "ray" not in (path, *path.parents)
    }
    assert loose == set()
    names = {path.name for path in written}
    assert {"registry.db", "mesh.json", "cache", "uploads", "controller.sock", "rds.json"} <= names


def is_private(path: Path) -> bool:
    """Return whether only its owner has rights to a file, or it is a link, or gone."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return True
    return stat.S_ISLNK(mode) or not stat.S_IMODE(mode) & 0o077


def in_shared_memory(pids: set[int]) -> set[Path]:
    """Return the files in shared memory that the processes have mapped, and their folders."""
    paths = {
        Path(path)
        for pid in pids
        for path in re.findall(r"(/dev/shm/[^ \n]+)$", _maps(pid), re.MULTILINE)
    }
    return paths | {path.parent for path in paths} - {Path("/dev/shm")}


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""
