from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.values import commands, events, model
from tests.core import world

A = model.ModelId("a")


@pytest.fixture
def made():
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2),))
    fresh.feed(events.ModelsRegistered((world.spec("a"),)))
    fresh.perform_all()
    yield fresh
    fresh.settle()
    fresh.check_settled()


def answer(made):
    """The answer of the last request with a ticket."""
    (ticket, *_) = sorted(made.ticket_answers, key=lambda name: -int(name.split()[1]))
    return made.ticket_answers[ticket]


def test_a_load_is_acknowledged_once_its_worker_has_the_model(made):
    assert made.load("a") is None
    assert made.log[-1].worker_id == made.mesh.home("a")
    made.perform_all()
    assert isinstance(answer(made), commands.Acknowledge)


def test_a_load_that_fails_is_refused_with_its_error(made):
    made.failing_loads = {"a"}
    made.load("a")
    made.perform_all()
    assert (type(answer(made).error), answer(made).error.message) == (
        errors.LoadFailed,
        "it is broken",
    )


def test_a_load_without_a_ready_worker_is_refused_with_a_time_to_retry(made):
    for worker_id in ("default-0", "default-1"):
        made.kill(worker_id)
    refusal = made.load("a")
    assert (type(refusal.error), refusal.error.retry_after_s) == (errors.Unavailable, 1.0)


def test_a_load_on_a_worker_that_is_lost_is_refused(made):
    assert made.load("a") is None
    made.kill(made.mesh.home("a"))
    assert "was lost during the load" in answer(made).error.message


def test_a_user_s_own_timeout_is_taken(made):
    made.request(lambda ticket: events.ModelLoadRequested(ticket, "a", A, 3.0))
    assert made.log[-1].timeout_s == 3.0


def test_an_unload_is_acknowledged_once_every_worker_has_answered(made):
    assert made.unload("a") is None
    made.step("default-0")
    assert len(made.open_tickets) == 1
    made.step("default-1")
    assert isinstance(answer(made), commands.Acknowledge)


def test_a_worker_that_is_lost_keeps_no_copy(made):
    made.unload("a")
    made.step("default-0")
    made.kill("default-1")
    assert isinstance(answer(made), commands.Acknowledge)


def test_an_unload_without_a_worker_is_done_at_once(made):
    for worker_id in ("default-0", "default-1"):
        made.kill(worker_id)
    assert isinstance(made.unload("a"), commands.Acknowledge)


def test_an_unload_that_fails_is_refused_and_one_that_reaches_nobody_is_not(made):
    made.unload("a")
    (ticket,) = made.open_tickets
    gone, bug = errors.Unavailable("there is no worker"), errors.MeshError("a bug")
    made.feed(events.CopyUnloaded("default-0", A, gone, ticket=ticket))
    assert made.open_tickets == {ticket}
    made.feed(events.CopyUnloaded("default-1", A, bug, ticket=ticket))
    assert answer(made) == commands.Refuse(ticket, bug)


def test_a_pinned_model_is_not_unloaded(made):
    made.feed(events.PinRequested(A, is_pinned=True))
    assert isinstance(made.unload("a").error, errors.Conflict)


def test_a_model_that_is_gone_is_neither_loaded_nor_unloaded(made):
    made.feed(events.ModelRemoved("a"))
    load = made.request(lambda ticket: events.ModelLoadRequested(ticket, "a", A))
    unload = made.request(lambda ticket: events.ModelUnloadRequested(ticket, A))
    assert [type(refusal.error) for refusal in (load, unload)] == [
        errors.Unavailable,
        errors.ModelNotFound,
    ]
