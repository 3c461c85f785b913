from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.memory import copies, waiters
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model

A, B = model.ModelId("a"), model.ModelId("b")
NO = errors.LoadFailed("no")


@pytest.fixture
def out() -> list[ev.Command]:
    return []


@pytest.fixture
def waiting(out: list[ev.Command]) -> waiters.Waiters:
    return waiters.Waiters(out)


def test_requests_are_taken_in_their_order(waiting: waiters.Waiters) -> None:
    copy = copies.Copy("k", model.Footprint())
    for ticket in (3, 1, 2):
        waiting.add(ticket, A, copy)
    assert waiting.take(copy) == [3, 1, 2]
    assert len(waiting) == 0
    assert not copy.waiters


def test_requests_of_one_model_are_taken_from_a_copy_that_serves_several(
    waiting: waiters.Waiters,
) -> None:
    copy = copies.Copy("k", model.Footprint())
    for ticket, id_ in ((1, A), (2, B), (3, A)):
        waiting.add(ticket, id_, copy)
    assert waiting.take(copy, A) == [1, 3]
    assert copy.waiters == {2: B}
    assert 2 in waiting
    assert 1 not in waiting


def test_removing_a_ticket_returns_what_it_waited_for(waiting: waiters.Waiters) -> None:
    binding = copies.Binding(A)
    waiting.add(1, A, binding)
    assert waiting.remove(1) is binding
    assert waiting.remove(1) is None
    assert not binding.waiters


def test_a_ticket_waits_for_one_record(waiting: waiters.Waiters) -> None:
    waiting.add(1, A, copies.Binding(A))
    with pytest.raises(AssertionError, match="waits already"):
        waiting.add(1, B, copies.Binding(B))


def test_all_tickets_are_refused_with_the_same_error(
    waiting: waiters.Waiters, out: list[ev.Command]
) -> None:
    waiting.refuse([1, 2], NO)
    assert out == [ev.RefuseLease(1, NO), ev.RefuseLease(2, NO)]
