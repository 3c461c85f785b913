from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import meshserve
from meshserve import errors, testing
from meshserve.testing import started_mesh
from tests.runtimes.test_onnx import linear

READY = """#!/bin/sh
for config; do :; done
STATE=$(sed 's/.*"state_dir": "\\([^"]*\\)".*/\\1/' "$config")
mkdir -p "$STATE"
echo '{"endpoint": "x", "pid": '$$'}' > "$STATE/mesh.json.new"
mv "$STATE/mesh.json.new" "$STATE/mesh.json"
trap 'rm "$STATE/mesh.json"; exit 0' TERM
while :; do sleep 0.05; done
"""
FAILED = """#!/bin/sh
echo "error: no such model"
exit 2
"""


def use_program(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Put a script in the place of Python."""
    program = folder / "program"
    program.write_text(text)
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_mesh_lasts_as_long_as_its_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_program(monkeypatch, tmp_path, READY)
    with testing.mesh({"models": []}) as started:
        host, _, port = started.endpoint.partition(":")
        assert (host, port.isdecimal(), port != "0") == ("127.0.0.1", True, True)
        document = json.loads((started.state_dir.parent / "config.yaml").read_text())
        assert document["gateway"]["listen"] == started.endpoint
        assert started.environment["MESHSERVE_HOME"] == str(started.state_dir)
    assert not started.state_dir.exists()


def test_a_start_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_program(monkeypatch, tmp_path, FAILED)
    with (
        pytest.raises(errors.Unavailable, match="did not start: error: no such model"),
        testing.mesh({}),
    ):
        pass


def test_only_a_free_port_is_chosen_again() -> None:
    assert started_mesh._may_choose({})
    assert started_mesh._may_choose({"gateway": {"listen": "0.0.0.0:0"}})
    assert not started_mesh._may_choose({"gateway": {"listen": "127.0.0.1:8080"}})


@pytest.mark.slow
def test_a_real_mesh_answers(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx")
    config = {
        "pools": {"default": {"workers": 1, "memory": "512MiB"}},
        "models": [{"name": "m", "uri": str(path)}],
    }
    with testing.mesh(config) as started:
        with meshserve.Client(started.endpoint) as client:
            assert set(client.predict("m", [[1.0] * 64])) == {"p", "label"}
        words = [sys.executable, "-m", "meshserve.cli", "models", "show", "m"]
        shown = subprocess.run(
            words, env=started.environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert "x FP32 [any, 64]" in shown.stdout


served = testing.mesh_fixture({"models": []}, scope="function")


def test_a_fixture_is_a_mesh(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    use_program(monkeypatch, tmp_path, READY)
    started: testing.StartedMesh = request.getfixturevalue("served")
    assert started.url == f"http://{started.endpoint}"
