from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve import errors
from meshserve.cluster import controller_actor
from meshserve.protocol import mesh_status
from tests import support
from tests.cluster import controllers

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("ray_session")]

ANSWER_S = 60.0

Start = Callable[[Any], controller_actor.ControllerHandle]


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts a controller; the controller is drained after the test."""
    yield controller_actor.start_controller
    controller = controller_actor.find_controller()
    if controller is not None:
        controller.drain(ANSWER_S)
    support.wait_until(is_gone, ANSWER_S, "the controller's name is free")


def is_gone() -> bool:
    return controller_actor.find_controller() is None


def status_of(controller: controller_actor.ControllerHandle | None) -> Any:
    """Return the controller's status once it answers."""
    assert controller is not None
    answers: list[mesh_status.MeshStatus] = []

    def has_answered() -> bool:
        try:
            answers.append(controller.status(ANSWER_S))
        except controller_actor.NoAnswer:
            return False
        return True

    support.wait_until(has_answered, ANSWER_S, "the controller answers")
    return answers[0]


def wait_until_dead(pid: int) -> None:
    support.wait_until(lambda: not Path(f"/proc/{pid}").exists(), ANSWER_S, "the process is dead")


def test_no_controller_exists_before_one_is_started() -> None:
    assert is_gone()


def test_a_controller_is_found_and_drained(start: Start) -> None:
    controller = start(controllers.WaitingController)
    pid = status_of(controller)["pid"]
    status_again = status_of(controller_actor.find_controller())
    assert status_again == {"pid": pid, "was_restarted": False}
    controller.drain(ANSWER_S)
    support.wait_until(is_gone, ANSWER_S, "the controller is gone")
    wait_until_dead(pid)
    with pytest.raises(controller_actor.NoAnswer):
        controller.status(ANSWER_S)
    controller.drain(ANSWER_S)


def test_requests_of_nodes_reach_it_and_its_refusals_come_back(start: Start) -> None:
    controller = start(controllers.WaitingController)
    status_of(controller)
    wished = controller.drain_node("n1", 5.0, is_ended=False, within_s=ANSWER_S)
    assert wished == ["NodeDrainRequested"]
    assert controller.end_node_drain("n1", ANSWER_S) == ["NodeDrainEndRequested"]
    with pytest.raises(errors.InvalidRequest, match="n2"):
        controller.end_node_drain("n2", ANSWER_S)


def test_actors_run_at_the_niceness_of_this_process(start: Start) -> None:
    pid = status_of(start(controllers.WaitingController))["pid"]
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)


def test_a_killed_controller_is_restarted_and_knows_it(start: Start) -> None:
    controller = start(controllers.WaitingController)
    killed_pid = status_of(controller)["pid"]
    os.kill(killed_pid, signal.SIGKILL)
    wait_until_dead(killed_pid)
    status = status_of(controller)
    assert status["was_restarted"]
    assert status["pid"] != killed_pid


def test_a_controller_that_was_drained_by_another_client_is_not_restarted(start: Start) -> None:
    controller = start(controllers.EndingController)
    support.wait_until(is_gone, ANSWER_S, "the controller is gone")
    with pytest.raises(controller_actor.NoAnswer):
        controller.status(ANSWER_S)
    controller.drain(ANSWER_S)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (
            controllers.RefusingController,
            errors.Unavailable("the registry is down", retry_after_s=2.5),
        ),
        (
            controllers.broken_controller,
            errors.MeshError("the controller could not begin: OSError('no space left')"),
        ),
    ],
)
def test_status_raises_the_reason_why_a_controller_could_not_start(
    start: Start, make: Any, error: errors.MeshError
) -> None:
    controller = start(make)
    with pytest.raises(errors.MeshError) as caught:
        status_of(controller)
    assert type(caught.value) is type(error)
    assert caught.value.message == error.message
    assert caught.value.retry_after_s == error.retry_after_s
    controller.drain(ANSWER_S)
