from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.cluster import session
from tests import support
from tests.cluster import held

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("ray_session")]

ANSWER_S = 60.0


@pytest.fixture
def started():
    """Starts a controller that holds this, and ends it afterwards."""

    def start(make):
        return session.start_controller(make)

    yield start
    there = session.find_controller()
    if there is not None:
        there.drain(ANSWER_S)
    support.wait_until(is_gone, ANSWER_S, "the controller's name is free")


def is_gone():
    return session.find_controller() is None


def status_of(controller):
    """Its status, once it answers."""
    found = []

    def has_answered():
        try:
            found.append(controller.status(ANSWER_S))
        except session.NoAnswer:
            return False
        return True

    support.wait_until(has_answered, ANSWER_S, "the controller answers")
    return found[0]


def test_a_signal_that_ends_this_process_is_still_ours_to_take():
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_there_is_none_before_one_is_started():
    assert is_gone()


def test_a_controller_is_found_and_drained(started):
    controller = started(held.Waiting)
    pid = status_of(controller)["pid"]
    assert status_of(session.find_controller()) == {"pid": pid, "was_restarted": False}
    controller.drain(ANSWER_S)
    support.wait_until(is_gone, ANSWER_S, "the controller is gone")
    support.wait_until(lambda: not Path(f"/proc/{pid}").exists(), ANSWER_S, "its process has ended")
    with pytest.raises(session.NoAnswer):
        controller.status(ANSWER_S)
    controller.drain(ANSWER_S)


def test_actors_stand_behind_no_other_program(started):
    pid = status_of(started(held.Waiting))["pid"]
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)


def test_a_killed_controller_begins_again_and_knows_it(started):
    controller = started(held.Waiting)
    first = status_of(controller)["pid"]
    os.kill(first, signal.SIGKILL)
    support.wait_until(lambda: not Path(f"/proc/{first}").exists(), ANSWER_S, "it is dead")
    again = status_of(controller)
    assert again["was_restarted"]
    assert again["pid"] != first


def test_a_controller_that_was_ended_from_elsewhere_is_not_begun_again(started):
    controller = started(held.Brief)
    support.wait_until(is_gone, ANSWER_S, "the controller is gone")
    with pytest.raises(session.NoAnswer):
        controller.status(ANSWER_S)
    controller.drain(ANSWER_S)


@pytest.mark.parametrize(
    ("make", "kind", "message", "retry_after_s"),
    [
        (held.Refusing, errors.Unavailable, "the registry is down", 2.5),
        (
            held.broken,
            errors.MeshError,
            "the controller could not begin: OSError('no space left')",
            None,
        ),
    ],
)
def test_what_keeps_a_controller_from_beginning_is_told(
    started, make, kind, message, retry_after_s
):
    controller = started(make)
    with pytest.raises(errors.MeshError) as caught:
        status_of(controller)
    assert (type(caught.value), caught.value.message, caught.value.retry_after_s) == (
        kind,
        message,
        retry_after_s,
    )
    controller.drain(ANSWER_S)


@pytest.mark.parametrize("address", ["nonsense", "ray://h:10001", ":6379", "h:port"])
def test_an_address_that_is_none_is_the_users_mistake(address):
    with pytest.raises(errors.ConfigInvalid, match="expected auto or HOST:PORT"):
        session.join(address)


def test_joining_where_no_cluster_is(monkeypatch):
    address = f"127.0.0.1:{support.free_port()}"
    with pytest.raises(errors.Unavailable, match=f"no Ray cluster answers at {address}"):
        session.join(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(errors.Unavailable, match=f"no Ray cluster answers at {address}"):
        session.join("auto")


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("auto", False),
        ("192.0.2.1:1", False),
        ("head:1", False),
    ],
)
def test_only_this_machines_own_addresses_are_shown_its_token(address, is_here):
    assert session._is_here(address) is is_here
