"""The example of a third party's runtime, installed from its pyproject.toml without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_runtime"
PIP = [
    *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
    *("--no-index", "--no-deps", "--no-build-isolation"),
]


def run(*command: str | Path, path: Sequence[Path]) -> str:
    """Run a command with these folders on Python's path, and return its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.edge
def test_the_example_installs_and_passes_its_own_tests(tmp_path: Path) -> None:
    # Setuptools leaves build folders beside what it builds.
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    site = tmp_path / "site"
    run(*PIP, "--target", site, source, path=())
    test = source / "test_meshserve_centroids.py"
    (source / "meshserve_centroids.py").unlink()
    pytest_command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull)
    output = run(*pytest_command, "--rootdir", source, test, path=(site, ROOT))
    assert "2 passed" in output
