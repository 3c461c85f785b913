from __future__ import annotations

import pytest

from meshserve.core.memory import copies, memory_account
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import model
from meshserve.core.values.model import NO_BYTES, Footprint

A = model.ModelId("a")


def booked(account: memory_account.MemoryAccount, key: str, host: int, gpu: int = 0) -> copies.Copy:
    """Return a new copy that has booked so many bytes."""
    copy = copies.Copy(key, Footprint(host, gpu))
    account.book(copy, copy.need)
    return copy


def test_booked_and_freeing_bytes_are_counted() -> None:
    account = memory_account.MemoryAccount(Footprint(100, 50))
    copy = booked(account, "k", 60, 20)
    account.book(copy, Footprint(80, 20), freeing=Footprint(0, 20))
    assert account.free == (20, 30)
    assert account.free_soon == (20, 50)
    account.book(copy, NO_BYTES)
    assert account.free == account.free_soon == (100, 50)


def test_evictable_bytes_are_counted_once() -> None:
    account = memory_account.MemoryAccount(Footprint(100))
    copy = booked(account, "k", 60, 5)
    account.mark_evictable(copy)
    account.mark_evictable(copy)
    assert account.evictable == (60, 5)
    account.mark_held(copy)
    account.mark_held(copy)
    assert account.evictable == (0, 0)


def test_the_bytes_of_an_evictable_copy_can_not_change() -> None:
    account = memory_account.MemoryAccount(Footprint(100))
    copy = booked(account, "k", 60)
    account.mark_evictable(copy)
    with pytest.raises(AssertionError, match="until it is held"):
        account.book(copy, NO_BYTES)


def test_overhead_is_the_memory_that_no_copy_accounts_for() -> None:
    account = memory_account.MemoryAccount(Footprint(100))
    booked(account, "k", 60)
    for private_bytes, overhead, least in [(90, 30, 30), (70, 10, 10), (95, 35, 10), (20, 0, 0)]:
        account.record_process_memory(private_bytes, 0)
        assert (account.overhead_bytes, account.overhead_min_bytes) == (overhead, least)
        assert account.free == (40 - overhead, 0)


def test_bytes_booked_for_loads_in_progress_do_not_hide_overhead() -> None:
    account = memory_account.MemoryAccount(Footprint(100))
    account.record_process_memory(30, 0)
    booked(account, "a", 50)
    account.record_process_memory(30, 50)
    assert (account.overhead_bytes, account.free.host_bytes) == (30, 20)
    account.record_process_memory(90, 50)
    assert account.overhead_bytes == 40
    account.record_process_memory(80, 0)
    assert (account.overhead_bytes, account.overhead_min_bytes) == (30, 30)


def test_the_recent_overhead_is_the_smallest_of_the_last_seconds() -> None:
    account = memory_account.MemoryAccount(Footprint(100))
    recent = []
    for second, overhead in enumerate([10, 60, 60, 60, 60, 40, 50]):
        now_s = second * memory_account.RECENT_S / 2
        account.record_process_memory(overhead, 0, now_s)
        recent.append(account.overhead_recent_bytes)
    assert recent == [10, 10, 10, 10, 60, 40, 40]
    assert account.overhead_min_bytes == 10


def test_pinned_bytes_can_never_be_free_for_other_copies() -> None:
    account = memory_account.MemoryAccount(Footprint(100, 100))
    pinned, other = booked(account, "pinned", 30, 10), booked(account, "other", 50)
    pinned.pins = frozenset({A})
    account.update_pinned(pinned)
    assert account.free_at_most(other, 5) == (65, 90)
    assert account.free_at_most(pinned, 0) == (100, 100)
    account.book(pinned, Footprint(40, 10), freeing=Footprint(0, 10))
    assert account.free_at_most(other, 0) == (70, 100)


def test_a_pin_of_a_draining_copy_keeps_no_bytes() -> None:
    account = memory_account.MemoryAccount(Footprint(100))
    copy = booked(account, "k", 30)
    copy.state, copy.pins = CopyPhase.DRAINING, frozenset({A})
    account.update_pinned(copy)
    assert account.pinned == NO_BYTES
