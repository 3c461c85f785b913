from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.memory import copies, copy_lifecycle
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyMove, CopyPhase
from meshserve.core.values import model
from meshserve.core.values.model import Footprint

A = model.ModelId("a")


def booked(ledger, key, host, gpu=0):
    """A copy that takes so much."""
    copy = copies.Copy(key, Footprint(host, gpu))
    ledger.book(copy, copy.need)
    return copy


def test_a_ledger_counts_what_is_booked_and_what_is_leaving():
    ledger = copies.MemoryAccount(Footprint(100, 50))
    copy = booked(ledger, "k", 60, 20)
    ledger.book(copy, Footprint(80, 20), leaving=Footprint(0, 20))
    assert ledger.room == (20, 30)
    assert ledger.room_soon == (20, 50)
    ledger.book(copy, copies.NOTHING)
    assert ledger.room == ledger.room_soon == (100, 50)


def test_what_may_leave_is_counted_once():
    ledger = copies.MemoryAccount(Footprint(100))
    copy = booked(ledger, "k", 60, 5)
    ledger.spare(copy)
    ledger.spare(copy)
    assert ledger.spared == (60, 5)
    ledger.hold(copy)
    ledger.hold(copy)
    assert ledger.spared == (0, 0)


def test_the_bytes_of_what_may_leave_are_fixed():
    ledger = copies.MemoryAccount(Footprint(100))
    copy = booked(ledger, "k", 60)
    ledger.spare(copy)
    with pytest.raises(AssertionError, match="until it is held"):
        ledger.book(copy, copies.NOTHING)


def test_overhead_is_what_no_copy_accounts_for():
    ledger = copies.MemoryAccount(Footprint(100))
    booked(ledger, "k", 60)
    for private_bytes, overhead, least in [(90, 30, 30), (70, 10, 10), (95, 35, 10), (20, 0, 0)]:
        ledger.see(private_bytes, 0)
        assert (ledger.overhead_bytes, ledger.overhead_min_bytes) == (overhead, least)
        assert ledger.room == (40 - overhead, 0)


def test_what_is_pinned_can_never_be_free_for_others():
    ledger = copies.MemoryAccount(Footprint(100, 100))
    pinned, other = booked(ledger, "pinned", 30, 10), booked(ledger, "other", 50)
    pinned.pins = frozenset({A})
    ledger.note_pins(pinned)
    assert ledger.room_at_most(other, 5) == (65, 90)
    assert ledger.room_at_most(pinned, 0) == (100, 100)
    ledger.book(pinned, Footprint(40, 10), leaving=Footprint(0, 10))
    assert ledger.room_at_most(other, 0) == (70, 100)


def test_a_pin_that_comes_too_late_keeps_nothing():
    ledger = copies.MemoryAccount(Footprint(100))
    copy = booked(ledger, "k", 30)
    copy.state, copy.pins = CopyPhase.DRAINING, frozenset({A})
    ledger.note_pins(copy)
    assert ledger.pinned == copies.NOTHING


def test_a_back_off_is_bounded_however_often_it_fails():
    trouble = None
    for _ in range(2000):
        trouble = copies.failed_again(
            trouble,
            errors.LoadFailed("no"),
            10.0,
            copies.WorkerLimits(Footprint(), back_off_max_s=60.0),
        )
    assert (trouble.failures, trouble.retry_at_s) == (2000, 70.0)


def test_a_refusal_keeps_the_kind_of_the_error_and_says_when_to_try_again():
    trouble = copies.failed_again(
        None,
        errors.MissingExtra("install it"),
        10.0,
        copies.WorkerLimits(Footprint(), back_off_s=2.0),
    )
    refusal = trouble.refusal(11.5)
    assert (type(refusal), refusal.message, refusal.retry_after_s) == (
        errors.MissingExtra,
        "install it",
        0.5,
    )
    assert trouble.refusal(12.0).retry_after_s is None


def fetched(need, load_s=0.0):
    return ev.ArtifactFetched(A, 1, "k", Footprint(need), load_s, can_park=True, load_timeout_s=7.0)


def test_a_copy_believes_its_artifact_until_it_is_measured():
    copy = copies.Copy("k", Footprint(1))
    copy.expect(fetched(5))
    assert (copy.need, copy.is_measured, copy.can_park, copy.load_timeout_s) == (
        (5, 0),
        False,
        True,
        7.0,
    )
    copy.expect(fetched(6, load_s=0.2))
    assert (copy.need, copy.load_s, copy.is_measured) == ((6, 0), 0.2, True)
    copy.expect(fetched(9))
    assert copy.need == (6, 0)
    copy.measured(Footprint(8), 0.5)
    assert (copy.need, copy.load_s) == ((8, 0), 0.5)


def test_a_copy_that_is_being_loaded_keeps_what_it_has_booked():
    copy = booked(copies.MemoryAccount(Footprint(100)), "k", 30)
    copy.expect(fetched(5))
    assert copy.need == (30, 0)


def test_a_shelved_copy_needs_only_the_gpu():
    ledger = copies.MemoryAccount(Footprint(100, 100))
    copy = copies.Copy("k", Footprint(10, 40), state=CopyPhase.PARKED)
    ledger.book(copy, copy.parked)
    assert copy.booked == (50, 0)
    copy.move(CopyMove.WANTED, 5.0)
    assert copy.is_shelved
    assert copy.is_there
    assert copy.need_now == (0, 40)
    assert copy.since_s == 5.0


@pytest.mark.parametrize("state", CopyPhase)
def test_what_is_absent_failed_queued_or_leaving_is_not_there(state):
    assert copies.Copy("k", Footprint(1), state=state).is_there == (
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
    ledger = copies.MemoryAccount(model.Footprint(100))
    ledger.see(30, 0)
    ledger.book(copies.Copy("a", model.Footprint(50)), model.Footprint(50))
    ledger.see(30, 50)
    assert (ledger.overhead_bytes, ledger.room.host_bytes) == (30, 20)
    ledger.see(90, 50)
    assert ledger.overhead_bytes == 40
    ledger.see(80, 0)
    assert (ledger.overhead_bytes, ledger.overhead_min_bytes) == (30, 30)


def test_a_load_takes_more_than_what_it_leaves():
    assert copies.Copy("a", model.Footprint(50, 7), load_extra_bytes=20).need_now == (70, 7)
