"""A mesh that is started by the command line, and its processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests import support

TAG = "MESHSERVE_TEST"
NATIVE = "MESHSERVE_TEST_NATIVE"
"""The variable with `gateway.native` of all meshes of tests: `auto` tries frames everywhere."""

READY_S = 90.0
PROGRAM = Path(sys.executable).with_name("meshserve")


@dataclass
class Mesh:
    """A running mesh. `listen` is its HOST:PORT, `document` its configuration."""

    listen: str
    home: Path
    document: dict[str, Any]
    process: subprocess.Popen[bytes]
    tag: str
    http: httpx.Client

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.http.get("/mesh/v1/status").raise_for_status().json()
        return status

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return the workers of the status by id."""
        return {
            worker["id"]: worker for pool in self.status()["pools"] for worker in pool["workers"]
        }

    def pids(self) -> set[int]:
        """Return the process ids of controller, workers, gateways and Envoys."""
        state = self.status()
        gateways = {gateway[key] for gateway in state["gateways"] for key in ("pid", "envoy_pid")}
        return {
            state["controller"]["pid"],
            *gateways,
            *(worker["pid"] for worker in self.workers().values()),
        }

    def model(self, name: str) -> dict[str, Any]:
        shown = self.http.get(f"/mesh/v1/models/{name}").raise_for_status()
        document: dict[str, Any] = shown.json()
        return document

    def log(self, name: str = "up") -> str:
        path = self.home / "up.out" if name == "up" else self.home / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def cli(self, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the mesh's state directory."""
        variables = {**os.environ, "MESHSERVE_HOME": str(self.home), **environment}
        return subprocess.run(
            [PROGRAM, *words],
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def living(self) -> set[int]:
        """Return the living processes of the mesh, by the tag in their environment."""
        return {
            int(path.name)
            for path in Path("/proc").iterdir()
            if path.name.isdecimal() and self.tag.encode() in _environment(path)
        }


@contextlib.contextmanager
def mesh(
    document: dict[str, Any],
    *,
    home: Path | None = None,
    is_detached: bool = False,
    folder: Path | None = None,
    **environment: str,
) -> Iterator[Mesh]:
    """Run `meshserve up` on a free port while the context lasts; SIGTERM ends it.

    The state directory is a temporary one, or `home`, which is kept. `folder` is the current one
    of its start, without it that of the tests.
    """
    is_kept = home is not None
    home = home or Path(tempfile.mkdtemp(prefix="ms-e2e-", dir="/tmp"))
    home.mkdir(exist_ok=True)
    listen = f"127.0.0.1:{support.free_port()}"
    # Tests register files over HTTP as their owner does by the command line.
    native = os.environ.get(NATIVE, "off")
    gateway: dict[str, Any] = {"file_roots": ["/"], "native": native}
    gateway |= {**document.get("gateway", {}), "listen": listen}
    document = {**document, "gateway": gateway}
    (home / "config.yaml").write_text(yaml.safe_dump(document))
    tag = uuid.uuid4().hex
    variables = {**os.environ, **environment, "MESHSERVE_HOME": str(home), TAG: tag}
    with (home / "up.out").open("wb") as out:
        words: list[str | Path] = [PROGRAM, "up", home / "config.yaml"]
        if is_detached:
            words.append("--detach")
        process = subprocess.Popen(
            words, stdout=out, stderr=out, env=variables, cwd=folder, start_new_session=True
        )
    with httpx.Client(base_url=f"http://{listen}", timeout=60) as http:
        started = Mesh(listen, home, document, process, tag, http)
        try:
            support.wait_until(lambda: _is_ready(started), READY_S, "the mesh is ready")
            yield started
        finally:
            end(started)
            if not is_kept:
                shutil.rmtree(home)


def _is_ready(started: Mesh) -> bool:
    assert started.process.poll() in (None, 0), started.log()
    return "is ready at" in started.log()


def end(started: Mesh, signal_: signal.Signals = signal.SIGTERM) -> int:
    """End the mesh, kill what is left of it, and return its exit code."""
    if started.process.poll() is None:
        started.process.send_signal(signal_)
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.process.wait(60)
    for pid in started.living():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return started.process.wait()


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""
