from __future__ import annotations

from typing import Any, cast

import pytest

from meshserve import errors
from meshserve.core.catalog import admin_requests, catalog_index
from meshserve.core.values import catalog, commands, desired, events
from tests.core import world


@pytest.fixture
def index() -> catalog_index.CatalogIndex:
    index = catalog_index.CatalogIndex()
    index.apply(desired.Desired(pools=(world.pool(),)))
    return index


@pytest.fixture
def out() -> list[Any]:
    return []


@pytest.fixture
def queue(index: catalog_index.CatalogIndex, out: list[Any]) -> admin_requests.AdminQueue:
    return admin_requests.AdminQueue(index, out)


def registration(*names: str, **fields: Any) -> events.ModelsRegistered:
    return events.ModelsRegistered(tuple(world.spec(name, **fields) for name in names))


def drain(out: list[commands.Command]) -> list[tuple[str, Any]]:
    drained = [(type(command).__name__, getattr(command, "ticket", None)) for command in out]
    out.clear()
    return drained


def save(
    queue: admin_requests.AdminQueue,
    index: catalog_index.CatalogIndex,
    changes: tuple[catalog.ModelDeclared],
) -> None:
    for change in changes:
        index.apply(change)
    queue.saved()


def test_a_request_is_acknowledged_once_its_changes_are_saved(
    queue: admin_requests.AdminQueue, index: catalog_index.CatalogIndex, out: list[Any]
) -> None:
    queue.add(registration("a"), "t1")
    (command,) = out
    assert drain(out) == [("SaveChanges", None)]
    save(queue, index, command.changes)
    assert out == [commands.Acknowledge("t1", ("model a:1 added",))]
    assert not queue.has_open


def test_the_next_request_is_decided_on_what_the_one_before_has_left(
    queue: admin_requests.AdminQueue, index: catalog_index.CatalogIndex, out: list[Any]
) -> None:
    queue.add(registration("a"), "t1")
    queue.add(registration("a", uri="/other"), "t2")
    queue.add(registration("b"), "t3")
    (command,) = out
    assert drain(out) == [("SaveChanges", None)]
    save(queue, index, command.changes)
    (_, refusal, _) = out
    assert isinstance(refusal.error, errors.AlreadyExists)
    assert drain(out) == [("Acknowledge", "t1"), ("Refuse", "t2"), ("SaveChanges", None)]


def test_a_save_that_fails_refuses_its_request_and_lets_the_next_one_go_on(
    queue: admin_requests.AdminQueue, index: catalog_index.CatalogIndex, out: list[Any]
) -> None:
    queue.add(registration("a"), "t1")
    queue.add(registration("b"), "t2")
    out.clear()
    error = errors.Unavailable("the registry is broken")
    queue.save_failed(error)
    assert out[0] == commands.Refuse("t1", error)
    assert drain(out)[1:] == [("SaveChanges", None)]
    assert index.models.versions("a") == ()


def test_a_request_that_changes_nothing_is_acknowledged_at_once(
    queue: admin_requests.AdminQueue, index: catalog_index.CatalogIndex, out: list[Any]
) -> None:
    queue.add(events.ConfigApplied(index.desired), "t")
    assert out == [commands.Acknowledge("t")]
    assert queue.is_configured


def test_a_request_without_a_ticket_is_answered_by_nothing(
    queue: admin_requests.AdminQueue, out: list[Any]
) -> None:
    queue.add(events.ModelRemoved("none"))
    assert out == []


def test_a_bug_in_one_decision_is_an_answer_and_holds_up_nothing(
    queue: admin_requests.AdminQueue, out: list[Any]
) -> None:
    with pytest.raises(AttributeError):
        queue.add(events.ModelsRegistered(cast("Any", (None,))), "t1")
    queue.add(registration("a"), "t2")
    assert drain(out) == [("Refuse", "t1"), ("SaveChanges", None)]


def test_an_answer_of_the_registry_without_a_save_is_a_bug(
    queue: admin_requests.AdminQueue,
) -> None:
    with pytest.raises(AssertionError, match="no changes are being saved"):
        queue.saved()


def test_a_registry_that_hangs_lets_no_caller_wait(
    queue: admin_requests.AdminQueue, index: catalog_index.CatalogIndex, out: list[Any]
) -> None:
    queue.add(registration("a"), "t1")
    queue.add(registration("b"), "t2")
    queue.add(registration("c"))
    (command,) = out
    out.clear()
    queue.save_stalled("it hangs")
    queue.add(registration("d"), "t3")
    said = [refusal.error.message for refusal in out]
    assert drain(out) == [("Refuse", "t1"), ("Refuse", "t2"), ("Refuse", "t3")]
    assert said == [
        "the registry may have saved this change, or not: it hangs. Look again later",
        "nothing was changed: the registry does not answer: it hangs",
        "nothing was changed: the registry does not answer: it hangs",
    ]
    # What the registry has is in the index too, and the mesh's own request goes on.
    save(queue, index, command.changes)
    assert drain(out) == [("SaveChanges", None)]
    queue.add(registration("e"), "t4")
    assert out == []


def test_a_hung_save_that_failed_leaves_nothing_behind(
    queue: admin_requests.AdminQueue, out: list[Any]
) -> None:
    queue.add(registration("a"), "t1")
    queue.save_stalled("it hangs")
    out.clear()
    queue.save_failed(errors.Unavailable("the connection broke"))
    assert out == []
    queue.add(registration("a"), "t2")
    assert drain(out) == [("SaveChanges", None)]


def test_a_stall_of_nothing_refuses_nothing(
    queue: admin_requests.AdminQueue, out: list[Any]
) -> None:
    queue.save_stalled("it hangs")
    queue.add(registration("a"), "t1")
    assert drain(out) == [("SaveChanges", None)]
