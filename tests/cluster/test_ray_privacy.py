"""A Ray cluster of our own: who can connect to it, and with what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from tests.faults import listening

pytestmark = pytest.mark.edge


PROGRAM = """
import json, os, pathlib, sys
from meshserve.cluster import ray_privacy
before, inside = dict(os.environ), []
for path in sys.argv[1:]:
    with ray_privacy.private_start(pathlib.Path(path)):
        inside.append({name: value for name, value in os.environ.items() if "RAY_AUTH" in name})
print(json.dumps([inside, dict(os.environ) == before]))
"""


def test_a_start_has_a_token_of_its_own_and_leaves_the_environment(tmp_path: Path) -> None:
    paths = [str(tmp_path / "a"), str(tmp_path / "new" / "b")]
    others = {"RAY_AUTH_TOKEN": "of-another-cluster", "RAY_AUTH_MODE": "disabled"}
    # In a process of its own: Ray keeps the last token that it has read for the whole process.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *paths],
        env=os.environ | others,
        check=True,
        capture_output=True,
    )
    assert json.loads(done.stdout) == [
        [{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": path} for path in paths],
        True,
    ]
    first, second = (Path(path).read_text() for path in paths)
    assert len(first) >= 43
    assert first != second
    assert {Path(path).stat().st_mode & 0o777 for path in paths} == {0o600}


@pytest.mark.usefixtures("ray_session")
def test_a_cluster_of_our_own_listens_on_the_loopback_alone_and_shows_nobody_its_token(
    short_folder: Path,
) -> None:
    task: Any = ray.remote(lambda: dict(os.environ))
    variables = ray.get(task.remote())
    token_path = short_folder / "ray.token"
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN_PATH"] == str(token_path)
    token = token_path.read_text()
    assert token not in str(variables)
    pids = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    assert {port.host for port in listening.find(pids).ports} == {"127.0.0.1"}
    assert not [pid for pid in pids if token in arguments(pid)]


def arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""  # it has ended
