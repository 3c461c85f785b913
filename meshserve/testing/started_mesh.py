"""A mesh for tests: a real one on this machine, as long as a block or a pytest fixture lasts."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from meshserve import errors

READY_S = 120.0
END_S = 90.0
POLL_S = 0.05
ANY_PORT = "127.0.0.1:0"
STARTS_MAX = 3
PORT_IS_TAKEN = "can't listen on"
LINES_MAX = 20


@dataclass(frozen=True, slots=True)
class StartedMesh:
    """A mesh that is ready. `endpoint` is its HOST:PORT, for `meshserve.Client`; `url` the same.

    `state_dir` is its state directory, which is removed with it; `logs` in it has its logs.
    """

    endpoint: str
    state_dir: Path

    @property
    def url(self) -> str:
        """Its address over HTTP."""
        return f"http://{self.endpoint}"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with which `meshserve` commands find the mesh."""
        return {**os.environ, "MESHSERVE_HOME": str(self.state_dir)}


@contextlib.contextmanager
def mesh(config: Mapping[str, Any]) -> Iterator[StartedMesh]:
    """Start a mesh of this configuration, and drain and end it with the block.

    `config` has the keys of config.yaml; paths must be absolute. Without `gateway.listen`, or with
    port 0, a free port is taken. Raises Unavailable, with the reason, if it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="meshserve-test-") as folder:
        process, started = _start(config, Path(folder))
        try:
            yield started
        finally:
            _end(process)


def mesh_fixture(
    config: Mapping[str, Any],
    scope: Literal["function", "module", "package", "session"] = "session",
) -> Callable[[], Iterator[StartedMesh]]:
    """Return a pytest fixture that is a mesh of this configuration; a test module names it."""
    # Imported here: only tests have pytest.
    pytest: Any = importlib.import_module("pytest")

    def started() -> Iterator[StartedMesh]:
        with mesh(config) as running:
            yield running

    fixture: Callable[[], Iterator[StartedMesh]] = pytest.fixture(scope=scope)(started)
    return fixture


def _start(config: Mapping[str, Any], folder: Path) -> tuple[subprocess.Popen[bytes], StartedMesh]:
    for remaining in range(STARTS_MAX - 1, -1, -1):
        try:
            return _start_once(config, folder)
        except errors.Unavailable as error:
            # Another program has taken the port that was free: one more is looked for.
            if not remaining or PORT_IS_TAKEN not in error.message or not _may_choose(config):
                raise
    raise AssertionError("the last start has returned or raised")


def _may_choose(config: Mapping[str, Any]) -> bool:
    listen = config.get("gateway", {}).get("listen", ANY_PORT)
    return str(listen).endswith(":0")


def _start_once(
    config: Mapping[str, Any], folder: Path
) -> tuple[subprocess.Popen[bytes], StartedMesh]:
    gateway = dict(config.get("gateway", {}))
    host, _, port = str(gateway.get("listen", ANY_PORT)).rpartition(":")
    endpoint = f"{host}:{_free_port(host) if port == '0' else port}"
    state_dir = folder / "state"
    document = {
        **config,
        "gateway": {**gateway, "listen": endpoint},
        "state_dir": str(config.get("state_dir", state_dir)),
    }
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps(document))
    output = folder / "up.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "meshserve.cli", "up", str(folder / "config.yaml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C ends the tests, and they end the mesh.
            start_new_session=True,
        )
    started = StartedMesh(endpoint, Path(document["state_dir"]))
    try:
        _wait_until_ready(process, started, output)
    except BaseException:
        _end(process)
        raise
    return process, started


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], started: StartedMesh, output: Path) -> None:
    end_s = time.monotonic() + READY_S
    noted = started.state_dir / "mesh.json"
    # The file of a mesh that ran before names another process.
    while not noted.exists() or json.loads(noted.read_text()).get("pid") != process.pid:
        if process.poll() is not None or time.monotonic() > end_s:
            why = "did not start" if process.poll() is not None else f"is not ready in {READY_S} s"
            lines = "\n".join(output.read_text(errors="replace").splitlines()[-LINES_MAX:])
            raise errors.Unavailable(f"the mesh {why}: {lines}")
        time.sleep(POLL_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
