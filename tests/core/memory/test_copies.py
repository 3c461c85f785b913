from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.memory import copies, copy_lifecycle
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyMove, CopyPhase
from meshserve.core.values import model
from meshserve.core.values.model import Footprint

A = model.ModelId("a")


def booked(account, key, host, gpu=0):
    """A copy that takes so much."""
    copy = copies.Copy(key, Footprint(host, gpu))
    account.book(copy, copy.need)
    return copy


def test_a_ledger_counts_what_is_booked_and_what_is_leaving():
    account = copies.MemoryAccount(Footprint(100, 50))
    copy = booked(account, "k", 60, 20)
    account.book(copy, Footprint(80, 20), freeing=Footprint(0, 20))
    assert account.free == (20, 30)
    assert account.free_soon == (20, 50)
    account.book(copy, copies.NOTHING)
    assert account.free == account.free_soon == (100, 50)


def test_what_may_leave_is_counted_once():
    account = copies.MemoryAccount(Footprint(100))
    copy = booked(account, "k", 60, 5)
    account.mark_evictable(copy)
    account.mark_evictable(copy)
    assert account.evictable == (60, 5)
    account.mark_held(copy)
    account.mark_held(copy)
    assert account.evictable == (0, 0)


def test_the_bytes_of_what_may_leave_are_fixed():
    account = copies.MemoryAccount(Footprint(100))
    copy = booked(account, "k", 60)
    account.mark_evictable(copy)
    with pytest.raises(AssertionError, match="until it is held"):
        account.book(copy, copies.NOTHING)


def test_overhead_is_what_no_copy_accounts_for():
    account = copies.MemoryAccount(Footprint(100))
    booked(account, "k", 60)
    for private_bytes, overhead, least in [(90, 30, 30), (70, 10, 10), (95, 35, 10), (20, 0, 0)]:
        account.record_process_memory(private_bytes, 0)
        assert (account.overhead_bytes, account.overhead_min_bytes) == (overhead, least)
        assert account.free == (40 - overhead, 0)


def test_what_is_pinned_can_never_be_free_for_others():
    account = copies.MemoryAccount(Footprint(100, 100))
    pinned, other = booked(account, "pinned", 30, 10), booked(account, "other", 50)
    pinned.pins = frozenset({A})
    account.update_pinned(pinned)
    assert account.free_at_most(other, 5) == (65, 90)
    assert account.free_at_most(pinned, 0) == (100, 100)
    account.book(pinned, Footprint(40, 10), freeing=Footprint(0, 10))
    assert account.free_at_most(other, 0) == (70, 100)


def test_a_pin_that_comes_too_late_keeps_nothing():
    account = copies.MemoryAccount(Footprint(100))
    copy = booked(account, "k", 30)
    copy.state, copy.pins = CopyPhase.DRAINING, frozenset({A})
    account.update_pinned(copy)
    assert account.pinned == copies.NOTHING


def test_a_back_off_is_bounded_however_often_it_fails():
    failure = None
    for _ in range(2000):
        failure = copies.add_failure(
            failure,
            errors.LoadFailed("no"),
            10.0,
            copies.WorkerLimits(Footprint(), back_off_max_s=60.0),
        )
    assert (failure.failures, failure.retry_at_s) == (2000, 70.0)


def test_a_refusal_keeps_the_kind_of_the_error_and_says_when_to_try_again():
    failure = copies.add_failure(
        None,
        errors.MissingExtra("install it"),
        10.0,
        copies.WorkerLimits(Footprint(), back_off_s=2.0),
    )
    refusal = failure.refusal(11.5)
    assert (type(refusal), refusal.message, refusal.retry_after_s) == (
        errors.MissingExtra,
        "install it",
        0.5,
    )
    assert failure.refusal(12.0).retry_after_s is None


def fetched(need, load_s=0.0):
    return ev.ArtifactFetched(
        A, 1, "k", Footprint(need), load_s, can_offload=True, load_timeout_s=7.0
    )


def test_a_copy_believes_its_artifact_until_it_is_measured():
    copy = copies.Copy("k", Footprint(1))
    copy.apply_artifact(fetched(5))
    assert (copy.need, copy.is_measured, copy.can_offload, copy.load_timeout_s) == (
        (5, 0),
        False,
        True,
        7.0,
    )
    copy.apply_artifact(fetched(6, load_s=0.2))
    assert (copy.need, copy.load_s, copy.is_measured) == ((6, 0), 0.2, True)
    copy.apply_artifact(fetched(9))
    assert copy.need == (6, 0)
    copy.record_load(Footprint(8), 0.5)
    assert (copy.need, copy.load_s) == ((8, 0), 0.5)


def test_a_copy_that_is_being_loaded_keeps_what_it_has_booked():
    copy = booked(copies.MemoryAccount(Footprint(100)), "k", 30)
    copy.apply_artifact(fetched(5))
    assert copy.need == (30, 0)


def test_a_shelved_copy_needs_only_the_gpu():
    account = copies.MemoryAccount(Footprint(100, 100))
    copy = copies.Copy("k", Footprint(10, 40), state=CopyPhase.OFFLOADED)
    account.book(copy, copy.offloaded_need)
    assert copy.booked == (50, 0)
    copy.move(CopyMove.REQUESTED, 5.0)
    assert copy.is_queued_for_onload
    assert copy.is_in_memory
    assert copy.admission_need == (0, 40)
    assert copy.since_s == 5.0


@pytest.mark.parametrize("state", CopyPhase)
def test_what_is_absent_failed_queued_or_leaving_is_not_there(state):
    assert copies.Copy("k", Footprint(1), state=state).is_in_memory == (
        state.value not in {"absent", "failed", "queued", "evicting"}
    )


@pytest.mark.parametrize("state", CopyPhase)
def test_only_unused_and_unpinned_copies_in_memory_are_idle(state):
    copy = copies.Copy("k", Footprint(1), state=state)
    assert copy.is_idle == (state in copy_lifecycle.IDLE)
    copy.leases = 1
    assert not copy.is_idle
    copy.leases, copy.pins = 0, frozenset({A})
    assert not copy.is_idle


def test_bytes_booked_for_loads_under_way_do_not_hide_what_the_process_takes():
    account = copies.MemoryAccount(model.Footprint(100))
    account.record_process_memory(30, 0)
    account.book(copies.Copy("a", model.Footprint(50)), model.Footprint(50))
    account.record_process_memory(30, 50)
    assert (account.overhead_bytes, account.free.host_bytes) == (30, 20)
    account.record_process_memory(90, 50)
    assert account.overhead_bytes == 40
    account.record_process_memory(80, 0)
    assert (account.overhead_bytes, account.overhead_min_bytes) == (30, 30)


def test_a_load_takes_more_than_what_it_leaves():
    assert copies.Copy("a", model.Footprint(50, 7), load_extra_bytes=20).admission_need == (70, 7)
