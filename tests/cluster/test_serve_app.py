"""The Serve app of a RayService, on a real local Ray Serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from meshserve.cluster import controller_actor, session
from tests import support

serve = pytest.importorskip("ray.serve", reason="the extra `serve` is not installed")
APP = "mesh"


class Controller:
    """A controller whose mesh is in the state that a file says."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def status(self) -> dict[str, Any]:
        return {"state": self._file.read_text()}

    async def drain(self) -> None:
        pass


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "state"
    file.write_text("starting")
    session.begin(str(tmp_path / "ray"))
    try:
        controller_actor.start_controller(lambda: Controller(file))
        yield file
        serve.shutdown()
    finally:
        ray.shutdown()


def wait_until(is_true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + support.WAIT_S
    while not is_true():
        assert time.monotonic() < end_s
        time.sleep(0.2)


def app_status() -> str:
    return str(serve.status().applications[APP].status)


@pytest.mark.slow
@pytest.mark.edge
def test_the_app_is_healthy_exactly_when_the_mesh_is_ready(state: Path) -> None:
    from meshserve.cluster import serve_app  # noqa: PLC0415 - needs the extra

    serve.start(proxy_location="Disabled")
    serve._run(serve_app.app, name=APP, route_prefix=None, _blocking=False)
    wait_until(lambda: APP in serve.status().applications)
    assert app_status() == "DEPLOYING"
    state.write_text("ready")
    wait_until(lambda: app_status() == "RUNNING")
    state.write_text("draining")
    wait_until(lambda: app_status() in {"UNHEALTHY", "DEPLOYING"})
    state.write_text("ready")
    wait_until(lambda: app_status() == "RUNNING")
