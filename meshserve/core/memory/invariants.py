"""The invariants of one worker's memory; tests assert them after each event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshserve.core.memory import admission, copies, memory_pool, waiters
from meshserve.core.memory.copy_lifecycle import IDLE, INCOMING, WAITABLE, CopyPhase
from meshserve.core.values import model


def check_copies(
    all_copies: Mapping[str, copies.Copy], bindings: Mapping[model.ModelId, copies.Binding]
) -> None:
    """Assert that leases, waiters, pins and failures fit each phase, and names fit bindings."""
    for key, copy in all_copies.items():
        assert copy.key == key
        _check_copy(copy)
    for id_, binding in bindings.items():
        assert binding.key is None or id_ in all_copies[binding.key].names, (
            f"{id_} is bound to a copy that does not know it"
        )
        assert binding.key is None or not (binding.is_fetching or binding.waiters), (
            f"{id_} is bound and still waited for"
        )
        assert binding.is_fetching or not binding.waiters, (
            f"requests wait for {id_} and no fetch is under way"
        )
    named = {(id_, copy.key) for copy in all_copies.values() for id_ in copy.names}
    bound = {(id_, binding.key) for id_, binding in bindings.items() if binding.key is not None}
    assert named == bound


def _check_copy(copy: copies.Copy) -> None:
    state, label = copy.state, f"{copy.key} ({copy.state.value})"
    assert not copy.leases or state in {CopyPhase.READY, CopyPhase.DRAINING}, f"{label} is leased"
    assert copy.leases or state is not CopyPhase.DRAINING, f"{label} drains without a lease"
    assert not copy.waiters or state in WAITABLE, f"{label} has waiters that wait for nothing"
    assert copy.waiters or state is not CopyPhase.QUEUED, f"{label} is queued without a waiter"
    assert copy.pins <= copy.names, f"{label} is pinned by a model that it does not serve"
    assert copy.names or state not in IDLE | {CopyPhase.ABSENT, CopyPhase.FAILED}, (
        f"{label} serves no model and was kept"
    )
    assert not copy.is_unload_requested or state is not CopyPhase.READY, (
        f"{label} should have been drained"
    )
    assert set(copy.waiters.values()) <= copy.names, (
        f"{label} has waiters for a model that it does not serve"
    )
    assert copy.failure or state not in {CopyPhase.FAILED, CopyPhase.STUCK}, (
        f"{label} has no failure to report"
    )


def check_bytes(pool: memory_pool.MemoryPool, all_copies: Mapping[str, copies.Copy]) -> None:
    """Assert that the account's sums are right, and that copies that stay are within budget."""
    account, records = pool.account, all_copies.values()
    draining = [copy.booked for copy in records if copy.state is CopyPhase.DRAINING]
    assert account.booked == _sum(copy.booked for copy in records)
    assert account.freeing == _sum(copy.freeing for copy in records)
    assert account.draining == _sum(draining)
    assert account.evictable == _sum(copy.booked for copy in records if copy.is_idle)
    assert account.pinned == _sum(copy.pinned for copy in records)
    staying = account.booked.minus(account.freeing)
    assert staying.fits_in(account.budget), f"{staying} stay, over the budget {account.budget}"
    for copy in records:
        _check_booking(copy, is_ranked=pool.is_ranked(copy))


def _check_booking(copy: copies.Copy, *, is_ranked: bool) -> None:
    state, label = copy.state, f"{copy.key} ({copy.state.value})"
    assert copy.is_evictable == copy.is_idle, f"{label} is marked as evictable wrongly"
    assert is_ranked == (state in IDLE and not copy.pins), f"{label} is ranked wrongly"
    assert copy.booked == model.NO_BYTES or state not in {CopyPhase.ABSENT, CopyPhase.FAILED}, (
        f"{label} has bytes booked"
    )
    is_freeing = state in {CopyPhase.EVICTING, CopyPhase.OFFLOADING}
    assert copy.freeing == model.NO_BYTES or is_freeing, f"{label} frees bytes without an order"
    assert copy.freeing == copy.booked or state is not CopyPhase.EVICTING, (
        f"{label} does not free all of its bytes"
    )


def check_admission(
    queue: admission.Admission,
    pool: memory_pool.MemoryPool,
    all_copies: Mapping[str, copies.Copy],
    limits: copies.WorkerLimits,
) -> None:
    """Assert that queue and loads match the copies' phases, and no copy waits for free memory."""
    items = all_copies.items()
    assert set(queue.queue) == {key for key, copy in items if copy.state is CopyPhase.QUEUED}
    assert set(queue.in_progress) == {key for key, copy in items if copy.state in INCOMING}
    assert len(queue.in_progress) <= limits.loads_parallel
    if queue.queue and len(queue.in_progress) < limits.loads_parallel:
        first = next(iter(queue.queue.values()))
        assert not first.admission_need.fits_in(pool.account.free), (
            f"{first.key} waits for memory that is free"
        )


def check_waiters(waiting: waiters.Waiters, records: Iterable[waiters.Record]) -> None:
    """Assert that each waiting request waits for exactly one record."""
    tickets = [ticket for record in records for ticket in record.waiters]
    assert len(tickets) == len(set(tickets)) == len(waiting)
    assert all(ticket in waiting for ticket in tickets)
    assert not copies.NO_WAITERS, "records without waiters share one dictionary, and it has entries"


def _sum(footprints: Iterable[model.Footprint]) -> model.Footprint:
    total = model.NO_BYTES
    for footprint in footprints:
        total = total.plus(footprint)
    return total
