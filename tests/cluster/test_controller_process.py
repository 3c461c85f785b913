"""The control plane in its actor, with a fake cluster and a registry that outlives it."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshserve import errors
from meshserve.cluster import controller_actor, controller_process
from meshserve.logs import log_files
from meshserve.registry import sql_registry
from tests import support
from tests.cluster import controllers

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.usefixtures("ray_session")]

ANSWER_S = 60.0
DOCUMENT = {
    "pools": {"default": {"workers": 2}},
    "models": [{"name": "conf", "uri": "/models/conf", "aliases": ["al"]}],
}


@pytest.fixture
def plan(run_dir: str, tmp_path: Path) -> Any:
    def planned(document: Any) -> Any:
        registry_url = f"sqlite:///{tmp_path}/registry.db"
        return controller_process.ControllerPlan(
            json.dumps(document),
            registry_url,
            str(tmp_path),
            log_files.LogPlan(str(tmp_path)),
            f"{run_dir}/c",
        )

    return planned


@pytest.fixture
def start(plan: Any) -> Iterator[Any]:
    """A function that starts a control plane with a configuration document."""

    def starting(document: Any = None) -> Any:
        return controller_actor.start_controller(
            functools.partial(controllers.control_plane_on_fakes, plan(document or DOCUMENT))
        )

    yield starting
    controller = controller_actor.find_controller()
    if controller is not None:
        controller.drain(ANSWER_S)
    support.wait_until(is_gone, ANSWER_S, "the controller's name is free")


@pytest.fixture
def http(run_dir: str) -> Iterator[Any]:
    """A client on the controller's own socket."""
    transport = httpx.HTTPTransport(uds=f"{run_dir}/c/{controller_process.SOCKET}")
    with httpx.Client(transport=transport, base_url="http://mesh", timeout=ANSWER_S) as client:
        yield client


def is_gone() -> Any:
    return controller_actor.find_controller() is None


def wait_until_ready(controller: Any) -> Any:
    def is_ready() -> Any:
        try:
            return controller.status(ANSWER_S)["state"] == "ready"
        except controller_actor.NoAnswer:
            return False

    support.wait_until(is_ready, ANSWER_S, "the mesh is ready")


def test_a_control_plane_serves_on_its_socket_until_it_is_drained(
    start: Any, http: httpx.Client, run_dir: str
) -> None:
    controller = start()
    wait_until_ready(controller)
    status = http.get("/mesh/v1/status").json()
    assert (status["state"], status["models"]["registered"]) == ("ready", 1)
    assert status["controller"]["restarts"] == 0
    assert http.post("/mesh/v1/drain").json() == {"draining": True}
    support.wait_until(is_gone, ANSWER_S, "the controller is gone")
    assert list(Path(run_dir).iterdir()) == []
    controller.drain(ANSWER_S)


def test_a_drain_returns_when_everything_has_ended(start: Any, run_dir: str) -> None:
    controller = start()
    wait_until_ready(controller)
    controller.drain(ANSWER_S)
    assert list(Path(run_dir).iterdir()) == []


def test_a_restarted_control_plane_continues_from_the_registry(
    start: Any, http: httpx.Client
) -> None:
    controller = start()
    wait_until_ready(controller)
    http.put("/mesh/v1/models/more", json={"uri": "/models/more"}).raise_for_status()
    killed_pid = http.get("/mesh/v1/status").json()["controller"]["pid"]
    os.kill(killed_pid, signal.SIGKILL)
    support.wait_until(
        lambda: not Path(f"/proc/{killed_pid}").exists(), ANSWER_S, "the process is dead"
    )
    wait_until_ready(controller)
    status = http.get("/mesh/v1/status").json()
    assert (status["controller"]["restarts"], status["models"]["registered"]) == (1, 2)
    assert status["controller"]["pid"] != killed_pid


def test_an_impossible_configuration_is_reported_at_once(start: Any) -> None:
    controller = start(
        {"pools": {"default": {"device": "cuda", "workers": "auto", "gpu_memory": "1GiB"}}}
    )
    with pytest.raises(errors.ConfigInvalid, match="GPU"):
        wait_until_ready(controller)
    controller.drain(ANSWER_S)
    support.wait_until(is_gone, ANSWER_S, "the controller is gone")


def test_a_controller_that_slept_while_another_took_its_registry_ends_and_waits(
    start: Any, http: httpx.Client, tmp_path: Path
) -> None:
    controller = start()
    wait_until_ready(controller)
    http.put("/mesh/v1/models/kept", json={"uri": "/models/kept"}).raise_for_status()
    stopped = http.get("/mesh/v1/status").json()["controller"]["pid"]
    other = sql_registry.SqlRegistry(f"sqlite:///{tmp_path}/registry.db")
    os.kill(stopped, signal.SIGSTOP)
    assert other.take_lease("other", "the mesh next door", other.read_lease())
    held = other.read_lease()
    os.kill(stopped, signal.SIGCONT)
    support.wait_until(
        lambda: not Path(f"/proc/{stopped}").exists(), ANSWER_S, "the process has ended itself"
    )
    log = tmp_path / "controller.log"
    # Ray starts it again, and it waits as long as the other one gives signs of life.
    support.wait_until(lambda: is_waiting(log, other), ANSWER_S, "it says what it waits for")
    answer = http.get("/mesh/v1/status")
    assert answer.status_code == 503
    assert "the mesh next door writes this registry" in answer.json()["error"]
    assert other.read_lease().epoch == held.epoch
    assert "the mesh next door has taken the registry" in log.read_text()
    other.release_lease()
    other.close()
    wait_until_ready(controller)
    assert http.get("/mesh/v1/models/kept").status_code == 200


def is_waiting(log: Path, other: sql_registry.SqlRegistry) -> bool:
    """Give a sign of life of the other mesh; return whether the controller has seen one."""
    other.renew_lease()
    return "the controller waits for its registry: the mesh next door" in log.read_text()


def test_a_second_mesh_on_the_same_registry_is_refused_at_once(start: Any, tmp_path: Path) -> None:
    other = sql_registry.SqlRegistry(f"sqlite:///{tmp_path}/registry.db")
    assert other.take_lease("other", "the mesh next door", other.read_lease())
    controller = start()
    refusal = ""
    while not refusal:
        other.renew_lease()
        try:
            # While it starts, it answers that it is starting.
            assert controller.status(ANSWER_S)["state"] != "ready"
        except errors.Unavailable as error:
            refusal = error.message
    assert "the mesh next door writes this registry" in refusal
    other.close()
