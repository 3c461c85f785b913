"""A mesh on a Ray cluster that was there before it, and goes on after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests import support
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(400)]

BIN = Path(sys.executable).parent
START_S = 120.0
LIST_ACTORS = """
import ray, sys
ray.init(sys.argv[1], namespace="meshserve", log_to_driver=False, logging_level="ERROR")
print(*ray.util.list_named_actors(), sep="\\n")
"""


class Cluster:
    """A head node with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{support.free_port()}"
        self.folder = folder
        self.log = folder / "ray.out"
        self.mesh_file = folder / "home" / "mesh.json"
        # Ray itself asks for the token that it finds in the user's folder.
        token = folder / ".ray" / "auth_token"
        token.parent.mkdir()
        token.write_text("0" * 64)
        self.variables = {
            **os.environ,
            "MESHSERVE_HOME": str(folder / "home"),
            "TMPDIR": str(folder),
            "HOME": str(folder),
        }
        self.variables.pop("RAY_AUTH_MODE", None)
        port = self.address.partition(":")[2]
        words = [
            "--head",
            "--port",
            port,
            "--temp-dir",
            str(folder / "head"),
            "--node-ip-address",
            "127.0.0.1",
            "--num-cpus",
            "2",
        ]
        spare = [
            "--include-dashboard",
            "false",
            "--disable-usage-stats",
            "--object-store-memory",
            str(80 << 20),
            "--block",
        ]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [BIN / "ray", "start", *words, *spare], stdout=out, stderr=out, env=self.variables
            )

    def is_up(self) -> Any:
        assert self.process.poll() is None, self.log.read_text()
        return "Ray runtime started" in self.log.read_text()

    def run(self, *words: Any, **variables: Any) -> Any:
        return subprocess.run(
            words,
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    def actors(self) -> Any:
        done = self.run(sys.executable, "-c", LIST_ACTORS, self.address, RAY_AUTH_MODE="token")
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_S)


@pytest.fixture(scope="module")
def head(short_folder: Any) -> Iterator[Any]:
    folder = short_folder / "joined"
    folder.mkdir()
    started = Cluster(folder)
    try:
        support.wait_until(started.is_up, START_S, "the head node is up")
        yield started
    finally:
        started.end()


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """A configuration's file, with a `listen` of its own."""
    gateway = {"listen": f"127.0.0.1:{support.free_port()}"}
    pools = {"default": {"workers": 1, "memory": "1GiB"}}
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump({"gateway": gateway, "pools": pools, "models": traffic.models(tmp_path, 1)})
    )
    return path


def endpoint_in(config: Any) -> Any:
    return "http://" + yaml.safe_load(config.read_text())["gateway"]["listen"]


def assert_nothing_is_left(head: Any) -> None:
    support.wait_until(lambda: head.actors() == [], START_S, "no actor of the mesh is left")
    assert not head.mesh_file.exists()
    assert list(head.folder.glob("meshserve-*")) == []


def test_a_detached_mesh_is_ended_by_its_controller(head: Any, config: Any) -> None:
    up = head.run(BIN / "meshserve", "up", config, "--address", head.address, "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    mesh = json.loads(head.mesh_file.read_text())
    assert (mesh["endpoint"], mesh["pid"]) == (endpoint_in(config), 0)
    assert httpx.get(endpoint_in(config) + "/v2/models/m0", timeout=START_S).json()["name"] == "m0"
    assert sorted(name.partition(":")[0] for name in head.actors()) == [
        "controller",
        "gateway",
        "worker",
    ]
    down = head.run(BIN / "meshserve", "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert_nothing_is_left(head)


@pytest.mark.parametrize("is_signalled", [True, False])
def test_a_mesh_and_the_process_that_holds_it_end_together(
    head: Any, config: Any, is_signalled: bool
) -> None:
    words = [BIN / "meshserve", "up", config, "--address", head.address]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=head.variables, text=True
    ) as up:
        support.wait_until(head.mesh_file.exists, START_S, "the mesh is ready")
        assert json.loads(head.mesh_file.read_text())["pid"] == up.pid
        if is_signalled:
            up.send_signal(signal.SIGTERM)
        else:
            httpx.post(endpoint_in(config) + "/mesh/v1/drain", timeout=START_S).raise_for_status()
        said, _ = up.communicate(timeout=START_S)
    assert (up.returncode, said.splitlines()[-1]) == (0, "the mesh has ended")
    assert_nothing_is_left(head)
