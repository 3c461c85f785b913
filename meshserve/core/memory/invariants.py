"""What must be true of one worker's memory after every event. Each function asserts one part of it; tests call them after each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshserve.core.memory import admission, copies, memory_pool, waiters
from meshserve.core.memory.copy_lifecycle import IDLE, MOVING, WAITABLE, CopyPhase
from meshserve.core.values import model


def check_copies(
    there: Mapping[str, copies.Copy], bindings: Mapping[model.ModelId, copies.Binding]
) -> None:
    """Each copy is used, waited for, pinned and kept only where its state allows it, and names agree with bindings."""
    for key, copy in there.items():
        assert copy.key == key
        _check_copy(copy)
    for id_, binding in bindings.items():
        assert binding.key is None or id_ in there[binding.key].names, (
            f"{id_} is bound to a copy that does not know it"
        )
        assert binding.key is None or not (binding.is_fetching or binding.waiters), (
            f"{id_} is bound and still waited for"
        )
        assert binding.is_fetching or not binding.waiters, (
            f"requests wait for {id_} and nobody fetches it"
        )
    named = {(id_, copy.key) for copy in there.values() for id_ in copy.names}
    assert named == {
        (id_, binding.key) for id_, binding in bindings.items() if binding.key is not None
    }


def _check_copy(copy: copies.Copy) -> None:
    who = f"{copy.key} ({copy.state.value})"
    assert not copy.leases or copy.state in {CopyPhase.READY, CopyPhase.DRAINING}, (
        f"{who} is leased"
    )
    assert copy.leases or copy.state is not CopyPhase.DRAINING, (
        f"{who} is in nobody's use and has not left"
    )
    assert not copy.waiters or copy.state in WAITABLE, f"{who} has waiters who wait for nothing"
    assert copy.waiters or copy.state is not CopyPhase.QUEUED, f"{who} is queued for nobody"
    assert copy.pins <= copy.names, f"{who} is pinned by a model that it does not serve"
    assert copy.names or copy.state not in IDLE | {CopyPhase.ABSENT, CopyPhase.FAILED}, (
        f"{who} serves no model and was kept"
    )
    assert not copy.is_unload_requested or copy.state is not CopyPhase.READY, (
        f"{who} should have been sent off"
    )
    assert set(copy.waiters.values()) <= copy.names, (
        f"{who} is waited for by requests for a model that it does not serve"
    )
    assert copy.failure or copy.state not in {CopyPhase.FAILED, CopyPhase.STUCK}, (
        f"{who} can't say why"
    )


def check_bytes(pool: memory_pool.MemoryPool, there: Mapping[str, copies.Copy]) -> None:
    """The account is the sum of the copies, those that stay are within the budget, and only what may leave is offered."""
    account, known = pool.account, there.values()
    assert account.booked == _sum(copy.booked for copy in known)
    assert account.freeing == _sum(copy.freeing for copy in known)
    assert account.draining == _sum(
        copy.booked for copy in known if copy.state is CopyPhase.DRAINING
    )
    assert account.evictable == _sum(copy.booked for copy in known if copy.is_idle)
    assert account.pinned == _sum(copy.pinned for copy in known)
    staying = account.booked.minus(account.freeing)
    assert staying.fits_in(account.budget), f"{staying} stay, over the budget {account.budget}"
    for copy in known:
        who = f"{copy.key} ({copy.state.value})"
        assert copy.is_evictable == copy.is_idle, f"{who} is offered wrongly"
        assert pool.ranks(copy) == (copy.state in IDLE and not copy.pins), (
            f"{who} is ranked wrongly"
        )
        assert copy.booked == copies.NOTHING or copy.state not in {
            CopyPhase.ABSENT,
            CopyPhase.FAILED,
        }, f"{who} has bytes booked"
        assert (copy.freeing != copies.NOTHING) <= (
            copy.state in {CopyPhase.EVICTING, CopyPhase.OFFLOADING}
        ), f"{who} is counted as leaving"
        assert copy.freeing == copy.booked or copy.state is not CopyPhase.EVICTING, (
            f"{who} leaves something behind"
        )


def check_admission(
    way_in: admission.Admission,
    pool: memory_pool.MemoryPool,
    there: Mapping[str, copies.Copy],
    limits: copies.WorkerLimits,
) -> None:
    """The queue and the loads are those of the copies' states, bounded, and nobody waits first in line for room that is there."""
    assert set(way_in.queue) == {
        key for key, copy in there.items() if copy.state is CopyPhase.QUEUED
    }
    assert set(way_in.in_progress) == {key for key, copy in there.items() if copy.state in MOVING}
    assert len(way_in.in_progress) <= limits.loads_parallel
    if way_in.queue and len(way_in.in_progress) < limits.loads_parallel:
        first = next(iter(way_in.queue.values()))
        assert not first.admission_need.fits_in(pool.account.free), (
            f"{first.key} waits for room that is there"
        )


def check_waiters(waiting: waiters.Waiters, records: Iterable[waiters.Record]) -> None:
    """Each waiting request waits for one thing."""
    found = [ticket for record in records for ticket in record.waiters]
    assert len(found) == len(set(found)) == len(waiting)
    assert all(ticket in waiting for ticket in found)
    assert not copies.NO_WAITERS, "those for whom nobody waits share one record of it"


def _sum(footprints: Iterable[model.Footprint]) -> model.Footprint:
    total = copies.NOTHING
    for footprint in footprints:
        total = total.plus(footprint)
    return total
