"""How a running mesh is changed and ended; tests/e2e shows how one is started."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.launch import lifecycle, mesh_file
from tests.launch import conftest

ADMIN_KEY = "gateway: {keys: [{client: a, key: plain}, {client: b, key: k, admin: true}]}\n"
HOLD_UNTIL_SIGTERM = """
import pathlib, signal, sys
from meshserve.launch import state_lock
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
with state_lock.held(pathlib.Path(sys.argv[1])):
    print(flush=True)
    signal.pause()
"""


@pytest.mark.parametrize(
    ("listen", "endpoint"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:81", "http://127.0.0.1:81"),
        (":82", "http://127.0.0.1:82"),
        ("10.0.0.7:83", "http://10.0.0.7:83"),
    ],
)
def test_the_endpoint_of_a_mesh_follows_from_its_listen_address(listen: str, endpoint: str) -> None:
    assert lifecycle.client_endpoint(listen) == endpoint


# Up


def test_a_start_that_cannot_succeed_fails_at_once_and_leaves_nothing(
    settings: conftest.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "t"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    steps: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = settings(f"gateway: {{listen: '127.0.0.1:{taken.getsockname()[1]}'}}\n")
        with pytest.raises(
            errors.Unavailable, match=r"gateway\.listen: can't listen on 127\.0\.0\.1"
        ):
            lifecycle.up(wanted, "c.yaml", None, steps.append)
    assert steps == []
    assert list(scratch.iterdir()) == []
    assert lifecycle.find_running(wanted.state_dir) is None


# Starting LLMs


def test_starting_llms_are_read_with_the_admin_key(
    mesh: conftest.StubMesh, settings: conftest.Settings
) -> None:
    llms = [{"name": "b", "replicas_min": 1, "state": "starting"}]
    mesh.answers["/mesh/v1/status"] = (200, json.dumps({"llms": llms}))
    assert lifecycle.starting_llms(mesh.endpoint, settings(ADMIN_KEY)) == ["b"]
    assert mesh.requests == [("/mesh/v1/status", "Bearer k", None)]


@pytest.mark.parametrize("answer", [(503, "{}"), (200, "<html>")])
def test_no_llm_is_starting_where_the_mesh_gives_no_status(
    mesh: conftest.StubMesh, settings: conftest.Settings, answer: tuple[int, str]
) -> None:
    mesh.answers["/mesh/v1/status"] = answer
    assert lifecycle.starting_llms(mesh.endpoint, settings()) == []


# Down


@contextlib.contextmanager
def holder(state_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the state directory until SIGTERM, and then ends with 7."""
    command = [sys.executable, "-c", HOLD_UNTIL_SIGTERM, str(state_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("is_noted", [True, False], ids=["ready", "starting"])
def test_down_ends_the_process_that_holds_the_mesh(tmp_path: Path, is_noted: bool) -> None:
    with holder(tmp_path) as process:
        if is_noted:
            # Its gateway does not answer, and the noted process is another one.
            mesh_file.write(tmp_path, mesh_file.MeshFile("http://127.0.0.1:1", os.getpid()))
        running = lifecycle.find_running(tmp_path)
        assert running == ("http://127.0.0.1:1" if is_noted else running)
        assert running is not None
        lifecycle.down(tmp_path, None)
        assert process.wait() == 7
    assert lifecycle.find_running(tmp_path) is None


def test_down_signals_no_process_but_the_holder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        mesh_file.write(tmp_path, mesh_file.MeshFile("http://127.0.0.1:1", other.pid))
        assert lifecycle.find_running(tmp_path) is None
        lifecycle.down(tmp_path, None)
        assert other.poll() is None
        other.communicate(b"\n")
    assert mesh_file.read(tmp_path) is None


def test_down_forgets_a_mesh_whose_process_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    mesh_file.write(tmp_path, mesh_file.MeshFile("http://h:1", process.pid))
    lifecycle.down(tmp_path, None)
    assert mesh_file.read(tmp_path) is None


def test_down_drains_a_mesh_that_no_process_holds(
    mesh: conftest.StubMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHSERVE_API_KEY", "k")
    mesh.answers["/mesh/v1/drain"] = (200, '{"draining": true}')
    mesh_file.write(tmp_path, mesh_file.MeshFile(mesh.endpoint))
    lifecycle.down(tmp_path, None)
    assert ("/mesh/v1/drain", "Bearer k", None) in mesh.requests
    assert mesh_file.read(tmp_path) is None


KILLED = mesh_file.MeshFile("http://127.0.0.1:1", 4194999, "c.yaml", "id-1", "h:6379")
"""A mesh on a Ray cluster that it joined, whose own process was killed."""


def test_down_ends_a_joined_mesh_whose_process_was_killed(
    mesh: conftest.StubMesh, tmp_path: Path
) -> None:
    mesh.answers |= {
        "/mesh/v1/drain": (200, '{"draining": true}'),
        "/mesh/v1/status": (200, '{"mesh_id": "id-1"}'),
    }
    mesh_file.write(tmp_path, KILLED._replace(endpoint=mesh.endpoint))
    assert lifecycle.find_running(tmp_path) == mesh.endpoint
    lifecycle.down(tmp_path, None)
    assert "/mesh/v1/drain" in [path for path, *_ in mesh.requests]
    assert mesh_file.read(tmp_path) is None


def test_down_says_that_it_cannot_tell_whether_a_joined_mesh_runs(tmp_path: Path) -> None:
    mesh_file.write(tmp_path, KILLED)
    assert lifecycle.find_running(tmp_path) == KILLED.endpoint
    doubt = r"no mesh answers at .*the Ray cluster at h:6379 may still run.*remove .*mesh\.json"
    with pytest.raises(errors.Unavailable, match=doubt):
        lifecycle.down(tmp_path, None)
    assert mesh_file.read(tmp_path) == KILLED


def test_down_drains_no_other_mesh(mesh: conftest.StubMesh, tmp_path: Path) -> None:
    mesh.answers["/mesh/v1/status"] = (200, '{"mesh_id": "id-2"}')
    noted = KILLED._replace(endpoint=mesh.endpoint)
    mesh_file.write(tmp_path, noted)
    with pytest.raises(errors.Unavailable, match="another mesh answers"):
        lifecycle.down(tmp_path, None)
    assert "/mesh/v1/drain" not in [path for path, *_ in mesh.requests]
    assert mesh_file.read(tmp_path) == noted


def test_down_of_another_mesh_leaves_the_own_file(mesh: conftest.StubMesh, tmp_path: Path) -> None:
    mesh.answers["/mesh/v1/drain"] = (200, '{"draining": true}')
    own = mesh_file.MeshFile("http://127.0.0.1:1", os.getpid())
    mesh_file.write(tmp_path, own)
    lifecycle.down(tmp_path, mesh.endpoint)
    assert mesh_file.read(tmp_path) == own


def test_a_refused_down_raises_the_reason_and_keeps_the_file(
    mesh: conftest.StubMesh, tmp_path: Path
) -> None:
    mesh.answers["/mesh/v1/drain"] = (401, '{"error": "no credentials"}')
    mesh_file.write(tmp_path, mesh_file.MeshFile(mesh.endpoint))
    with pytest.raises(errors.MeshError, match="no credentials"):
        lifecycle.down(tmp_path, None)
    assert mesh_file.read(tmp_path) is not None


def test_a_mesh_that_began_meanwhile_keeps_its_file(tmp_path: Path) -> None:
    mesh_file.write(tmp_path, mesh_file.MeshFile("http://127.0.0.1:1"))
    with holder(tmp_path):
        lifecycle._forget(tmp_path)
    assert mesh_file.read(tmp_path) is not None


def test_down_without_a_known_mesh_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="no mesh was started"):
        lifecycle.down(tmp_path, None)
