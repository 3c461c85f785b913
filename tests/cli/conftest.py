"""The command line in this process or in one of its own, and a fake mesh to ask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from meshserve.cli import main
from tests.cli import fake_mesh

Run = Callable[..., Result]
PROGRAM = "from meshserve.cli.main import main; main()"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_mesh.FakeMesh]:
    """A fake mesh that the command line finds by the environment."""
    with fake_mesh.serving() as serving:
        monkeypatch.setenv("MESHSERVE_ENDPOINT", serving.endpoint)
        yield serving


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in this process: `run("status")` gives exit_code, stdout and stderr."""
    monkeypatch.delenv("COLUMNS", raising=False)
    return lambda *words, **more: CliRunner().invoke(main.app, list(words), **more)


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own: returncode, stdout and stderr."""
    environ = {**os.environ, "MESHSERVE_HOME": str(tmp_path)}

    def start(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, *words]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environ | more,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )

    return start
