from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from meshserve import errors
from meshserve.core.values import commands, events, model
from tests.core import world

A = model.ModelId("a")


@pytest.fixture
def mesh_world() -> Iterator[world.World]:
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2),))
    fresh.feed(events.ModelsRegistered((world.spec("a"),)))
    fresh.perform_all()
    yield fresh
    fresh.settle()
    fresh.check_settled()


def answer(mesh_world: world.World) -> Any:
    """The answer of the last request with a ticket."""
    (ticket, *_) = sorted(mesh_world.ticket_answers, key=lambda name: -int(name.split()[1]))
    return mesh_world.ticket_answers[ticket]


def test_a_load_is_acknowledged_once_its_worker_has_the_model(mesh_world: world.World) -> None:
    assert mesh_world.load("a") is None
    (*_, order) = mesh_world.log
    assert isinstance(order, commands.EnsureLoaded)
    assert order.worker_id == mesh_world.home("a")
    mesh_world.perform_all()
    assert isinstance(answer(mesh_world), commands.Acknowledge)


def test_a_load_that_fails_is_refused_with_its_error(mesh_world: world.World) -> None:
    mesh_world.failing_loads = {"a"}
    mesh_world.load("a")
    mesh_world.perform_all()
    assert (type(answer(mesh_world).error), answer(mesh_world).error.message) == (
        errors.LoadFailed,
        "it is broken",
    )


def test_a_load_without_a_ready_worker_is_refused_with_a_time_to_retry(
    mesh_world: world.World,
) -> None:
    for worker_id in ("default-0", "default-1"):
        mesh_world.kill(worker_id)
    refusal = mesh_world.load("a")
    assert isinstance(refusal, commands.Refuse)
    assert isinstance(refusal.error, errors.Unavailable)
    assert refusal.error.retry_after_s == 1.0


def test_a_load_on_a_worker_that_is_lost_is_refused(mesh_world: world.World) -> None:
    assert mesh_world.load("a") is None
    mesh_world.kill(mesh_world.home("a"))
    assert "was lost during the load" in answer(mesh_world).error.message


def test_a_user_s_load_has_the_time_of_its_declaration(mesh_world: world.World) -> None:
    assert mesh_world.load("a") is None
    (*_, order) = mesh_world.log
    assert isinstance(order, commands.EnsureLoaded)
    assert order.timeout_s == mesh_world.mesh.view().declared("a").spec.load_timeout_s


def test_an_unload_is_acknowledged_once_every_worker_has_answered(mesh_world: world.World) -> None:
    assert mesh_world.unload("a") is None
    mesh_world.step("default-0")
    assert len(mesh_world.open_tickets) == 1
    mesh_world.step("default-1")
    assert isinstance(answer(mesh_world), commands.Acknowledge)


def test_a_worker_that_is_lost_keeps_no_copy(mesh_world: world.World) -> None:
    mesh_world.unload("a")
    mesh_world.step("default-0")
    mesh_world.kill("default-1")
    assert isinstance(answer(mesh_world), commands.Acknowledge)


def test_an_unload_without_a_worker_is_done_at_once(mesh_world: world.World) -> None:
    for worker_id in ("default-0", "default-1"):
        mesh_world.kill(worker_id)
    assert isinstance(mesh_world.unload("a"), commands.Acknowledge)


def test_a_failed_unload_is_refused_unless_the_worker_is_unreachable(
    mesh_world: world.World,
) -> None:
    mesh_world.unload("a")
    (ticket,) = mesh_world.open_tickets
    gone, bug = errors.Unavailable("there is no worker"), errors.MeshError("a bug")
    mesh_world.feed(events.CopyUnloaded("default-0", A, gone, ticket=ticket))
    assert mesh_world.open_tickets == {ticket}
    mesh_world.feed(events.CopyUnloaded("default-1", A, bug, ticket=ticket))
    assert answer(mesh_world) == commands.Refuse(ticket, bug)


def test_a_pinned_model_is_not_unloaded(mesh_world: world.World) -> None:
    mesh_world.feed(events.PinRequested(A, is_pinned=True))
    refusal = mesh_world.unload("a")
    assert isinstance(refusal, commands.Refuse)
    assert isinstance(refusal.error, errors.Conflict)


def test_a_model_that_is_gone_is_neither_loaded_nor_unloaded(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelRemoved("a"))
    load = mesh_world.request(lambda ticket: events.ModelLoadRequested(ticket, "a", A))
    unload = mesh_world.request(lambda ticket: events.ModelUnloadRequested(ticket, A))
    refusals = [answer for answer in (load, unload) if isinstance(answer, commands.Refuse)]
    assert [type(refusal.error) for refusal in refusals] == [
        errors.Unavailable,
        errors.ModelNotFound,
    ]
