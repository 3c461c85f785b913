"""Which processes a Ray cluster of our own has, and what they inherit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ray._private import parameter, services, utils

from meshserve import errors
from meshserve.cluster import ray_processes
from tests import support

pytestmark = pytest.mark.edge

UNUSED = ("autoscaler", "log_monitor.py", "dashboard/dashboard.py")
"""Parts of the paths of programs that a mesh has no use for."""

PROGRAM = """
import json, sys
import psutil, ray
from meshserve.cluster import session
class Holder:
    def is_there(self): return True
session.begin(sys.argv[1])
holder = ray.remote(Holder).remote()
assert ray.get(holder.is_there.remote())
commands = [child.cmdline() for child in psutil.Process().children(recursive=True)]
workers = [command for command in commands if "ray::" in command[0] or "default_worker" in command]
print(json.dumps(sorted(command[0].strip() for command in workers)))
session.end()
"""


def commands() -> list[str]:
    children = psutil.Process().children(recursive=True)
    paths = [Path(f"/proc/{child.pid}/cmdline") for child in children]
    return [path.read_text().replace("\0", " ") for path in paths if path.exists()]


@pytest.mark.usefixtures("ray_session")
def test_a_cluster_of_our_own_starts_nothing_that_a_mesh_does_not_use() -> None:
    running = commands()
    assert any("gcs_server" in command for command in running)
    assert not [command for command in running if any(name in command for name in UNUSED)]


@pytest.mark.slow
def test_nothing_is_started_for_tasks_that_may_come(short_folder: Path) -> None:
    # In a cluster in which no task has run: its process would stay.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(short_folder / "alone")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * support.WAIT_S,
        check=True,
    )
    assert json.loads(done.stdout) == ["ray::DashboardAgent", "ray::Holder", "ray::RuntimeEnvAgent"]


def test_rays_own_ways_are_back_after_a_start_that_failed() -> None:
    before = (parameter.RayParams, services.start_api_server)
    started = ray_processes.few(has_dashboard=False)
    started.__enter__()
    during = parameter.RayParams()
    assert during.no_monitor
    assert not during.include_log_monitor
    assert services.start_api_server is not before[1]
    failure = OSError("no room")
    assert not started.__exit__(OSError, failure, None)
    assert (parameter.RayParams, services.start_api_server) == before


def test_with_a_dashboard_its_server_starts_as_ray_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "get_dashboard_dependency_error", lambda: None)
    before = services.start_api_server
    with ray_processes.few(has_dashboard=True):
        assert services.start_api_server is before


def test_a_dashboard_without_its_libraries_is_refused_with_what_brings_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = ImportError("No module named 'aiohttp_cors'")
    monkeypatch.setattr(utils, "get_dashboard_dependency_error", lambda: missing)
    with pytest.raises(errors.Unavailable, match=r"'aiohttp_cors'.*pip install 'ray\[default\]'"):
        ray_processes.few(has_dashboard=True).__enter__()


def test_processes_inherit_variables_that_are_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OLD", "before")
    monkeypatch.delenv("NEW", raising=False)
    with ray_processes.inheriting({"OLD": "1", "NEW": "2"}):
        assert (os.environ["OLD"], os.environ["NEW"]) == ("1", "2")
    assert os.environ["OLD"] == "before"
    assert "NEW" not in os.environ
