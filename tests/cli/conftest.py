from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from meshserve.cli import main
from tests.cli import fake_mesh

PROGRAM = "from meshserve.cli.main import main; main()"


@pytest.fixture
def fake(monkeypatch):
    """A mesh that answers, and that the command line finds by the environment."""
    with fake_mesh.serving() as serving:
        monkeypatch.setenv("MESHSERVE_ENDPOINT", serving.endpoint)
        yield serving


@pytest.fixture
def run(monkeypatch):
    """The command line in this process: `run("status")` gives exit_code, stdout and stderr."""
    monkeypatch.delenv("COLUMNS", raising=False)
    return lambda *words, **more: CliRunner().invoke(main.app, list(words), **more)


@pytest.fixture
def process(tmp_path):
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
