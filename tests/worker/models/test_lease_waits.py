from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from meshserve import errors, tasks
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model
from meshserve.worker.models import lease_waits, model_host, resident_model
from tests.worker import helpers

ID = model.ModelId("m")


@pytest.fixture
async def resident(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> resident_model.ResidentModel:
    host = hosting()
    helpers.apply(host, *helpers.declared(helpers.spec("m", storage.put("m"))))
    return await host.lease(ID, later())


class Waiting:
    """One request that waits for a lease, and the events that it caused."""

    def __init__(self, resident: resident_model.ResidentModel, seconds: float = 20.0) -> None:
        self.events: list[ev.Event] = []
        self.waits = lease_waits.LeaseWaits(
            {resident.key: resident}.__getitem__, self.events.append
        )
        self.task = tasks.spawn(
            self.waits.wait(ID, later(seconds)), "wait for a lease", is_awaited=True
        )

    async def ticket(self) -> ev.Ticket:
        await asyncio.sleep(0)
        (requested,) = self.events
        assert isinstance(requested, ev.LeaseRequested)
        assert requested.id == ID
        return requested.ticket


def later(seconds: float = 20.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_a_granted_lease_is_the_copy(resident: resident_model.ResidentModel) -> None:
    waiting = Waiting(resident)
    waiting.waits.grant(await waiting.ticket(), resident.key)
    assert await waiting.task is resident
    assert len(waiting.events) == 1


async def test_a_refused_lease_raises_its_reason(resident: resident_model.ResidentModel) -> None:
    waiting = Waiting(resident)
    waiting.waits.refuse(await waiting.ticket(), errors.LoadFailed("broken"))
    with pytest.raises(errors.LoadFailed, match="broken"):
        await waiting.task
    assert len(waiting.events) == 1


async def test_a_requester_whose_deadline_passes_has_left(
    resident: resident_model.ResidentModel,
) -> None:
    waiting = Waiting(resident, 0.05)
    ticket = await waiting.ticket()
    with pytest.raises(errors.DeadlineExceeded, match=r"^Deadline Exceeded: .* m:1 was loading"):
        await waiting.task
    assert waiting.events[1:] == [ev.RequesterLeft(ticket)]


async def test_a_lease_that_is_granted_just_when_its_requester_leaves_is_released(
    resident: resident_model.ResidentModel,
) -> None:
    waiting = Waiting(resident)
    waiting.waits.grant(await waiting.ticket(), resident.key)
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    assert waiting.events[1:] == [ev.LeaseReleased(resident.key)]


async def test_a_lease_that_is_granted_after_its_requester_was_cancelled_is_released(
    resident: resident_model.ResidentModel,
) -> None:
    waiting = Waiting(resident)
    ticket = await waiting.ticket()
    waiting.task.cancel()
    waiting.waits.grant(ticket, resident.key)
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    assert waiting.events[1:] == [ev.LeaseReleased(resident.key)]


async def test_a_cancelled_requester_has_left(resident: resident_model.ResidentModel) -> None:
    waiting = Waiting(resident)
    ticket = await waiting.ticket()
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    assert waiting.events[1:] == [ev.RequesterLeft(ticket)]


async def test_a_lease_that_is_refused_after_its_requester_was_cancelled_harms_nobody(
    resident: resident_model.ResidentModel,
) -> None:
    waiting = Waiting(resident)
    ticket = await waiting.ticket()
    waiting.task.cancel()
    # It raised in the worker's only timer, which ended.
    waiting.waits.refuse(ticket, errors.LoadFailed("too late"))
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
