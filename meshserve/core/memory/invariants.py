"""The invariants of one worker's memory; tests assert them after each event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshserve.core.memory import admission, copies, memory_pool, waiters
from meshserve.core.memory.copy_lifecycle import IDLE, INCOMING, WAITABLE, CopyPhase
from meshserve.core.values import model

# Tuples: phases are compared by identity there, and their hashes are slow. Simulations spend a
# quarter of their time here.
LEASABLE = (CopyPhase.READY, CopyPhase.DRAINING)
WITHOUT_BYTES = (CopyPhase.ABSENT, CopyPhase.FAILED)
NAMELESS = (*IDLE, *WITHOUT_BYTES)
FAILING = (CopyPhase.FAILED, CopyPhase.STUCK)
FREEING = (CopyPhase.EVICTING, CopyPhase.OFFLOADING)


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
    state = copy.state
    assert not copy.leases or state in LEASABLE, f"{_label(copy)} is leased"
    assert copy.leases or state is not CopyPhase.DRAINING, f"{_label(copy)} drains without a lease"
    assert not copy.waiters or state in WAITABLE, (
        f"{_label(copy)} has waiters that wait for nothing"
    )
    assert copy.waiters or state is not CopyPhase.QUEUED, (
        f"{_label(copy)} is queued without a waiter"
    )
    assert not copy.pins or copy.pins <= copy.names, (
        f"{_label(copy)} is pinned by a model that it does not serve"
    )
    assert copy.names or state not in NAMELESS, f"{_label(copy)} serves no model and was kept"
    assert not copy.is_unload_requested or state is not CopyPhase.READY, (
        f"{_label(copy)} should have been drained"
    )
    assert not copy.waiters or set(copy.waiters.values()) <= copy.names, (
        f"{_label(copy)} has waiters for a model that it does not serve"
    )
    assert copy.failure or state not in FAILING, f"{_label(copy)} has no failure to report"


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
    state = copy.state
    assert copy.is_evictable == copy.is_idle, f"{_label(copy)} is marked as evictable wrongly"
    assert is_ranked == (state in IDLE and not copy.pins), f"{_label(copy)} is ranked wrongly"
    assert copy.booked == model.NO_BYTES or state not in WITHOUT_BYTES, (
        f"{_label(copy)} has bytes booked"
    )
    is_freeing = state in FREEING
    assert copy.freeing == model.NO_BYTES or is_freeing, (
        f"{_label(copy)} frees bytes without an order"
    )
    assert copy.freeing == copy.booked or state is not CopyPhase.EVICTING, (
        f"{_label(copy)} does not free all of its bytes"
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


def _label(copy: copies.Copy) -> str:
    return f"{copy.key} ({copy.state.value})"


def _sum(footprints: Iterable[model.Footprint]) -> model.Footprint:
    # Not by `plus`: simulations check these sums millions of times.
    host_bytes = gpu_bytes = 0
    for host, gpu in footprints:
        host_bytes, gpu_bytes = host_bytes + host, gpu_bytes + gpu
    return model.Footprint(host_bytes, gpu_bytes)
