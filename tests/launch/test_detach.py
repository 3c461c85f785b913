"""How the process of a detached mesh is awaited; tests/e2e starts a real one."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from meshserve import config, errors
from meshserve.launch import detach

READY = """#!/bin/sh
echo '{"endpoint": "http://h:1", "pid": '$$'}' > STATE/mesh.json.new
mv STATE/mesh.json.new STATE/mesh.json
"""
FAILED = """#!/bin/sh
echo 'port 8080 is in use' >&2
exit 1
"""


def use_program(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> str:
    """Put a script in the place of Python; return the path of a configuration to start it with."""
    program = folder / "program"
    program.write_text(text.replace("STATE", str(folder / "state")))
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    config_path = folder / "config.yaml"
    config_path.write_text("state_dir: state\n")
    return str(config_path)


# The process goes on by design: nothing waits for it.
@pytest.mark.filterwarnings("ignore:.*Popen.__del__")
def test_start_returns_the_endpoint_that_the_new_process_wrote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config_path = use_program(monkeypatch, tmp_path, READY)
    assert detach.start(config.load(config_path), config_path, None) == "http://h:1"


def test_a_failed_start_raises_the_output_of_the_new_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config_path = use_program(monkeypatch, tmp_path, FAILED)
    with pytest.raises(errors.Unavailable, match="did not start: port 8080 is in use"):
        detach.start(config.load(config_path), config_path, None)


def test_the_cause_of_a_failed_start_comes_first_and_alone() -> None:
    progress = "ray ready\ncontroller ready\nerror: the mesh is not ready;\n  default-0: killed\n"
    assert detach.cause(progress) == "the mesh is not ready; default-0: killed"
    assert detach.cause("a\nb\n") == "a b"
    assert detach.cause("") == "it has printed nothing"


def test_a_taken_port_is_told_before_a_process_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = config.parse(
            {"state_dir": str(tmp_path / "state"), "gateway": {"listen": listen}}
        )
        with pytest.raises(errors.Unavailable, match=f"gateway.listen: can't listen on {listen}"):
            detach.start(settings, "c.yaml", None)


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    settings = config.parse({"state_dir": str(tmp_path / "state" / "a")})
    with pytest.raises(errors.ConfigInvalid, match=r"state_dir: .*/state/a can't be written to"):
        detach.start(settings, "c.yaml", None)
