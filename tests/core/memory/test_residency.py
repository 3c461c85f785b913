"""The promises of a worker about its models, one test for each."""

from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core import state_table
from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, id_of

GONE = errors.LoadFailed("the bucket is gone")


# Requests


def test_a_model_is_fetched_loaded_and_leased() -> None:
    play = Play()
    play.declare("a")
    request = play.request("a")
    play.finish_fetch("a")
    play.finish_load("a")
    assert request.key == play.key("a")
    assert play.copy("a").leases == 1


def test_a_ready_model_is_leased_at_once() -> None:
    play = Play()
    play.declare("a")
    play.load("a")
    assert play.request("a").key
    assert play.residency.lease(id_of("a"), play.now_s) == play.key("a")
    assert play.copy("a").leases == 2
    counts = play.residency.counts
    assert (counts.hits, counts.misses, counts.loads) == (2, 1, 1)


def test_a_use_without_a_lease_counts_like_a_lease() -> None:
    play = Play()
    play.declare("a")
    assert play.residency.find_ready(id_of("a")) is None
    play.load("a")
    key = play.residency.find_ready(id_of("a"))
    assert key == play.key("a")
    play.now_s += 5.0
    play.residency.record_use(key, play.now_s)
    play.residency.check()
    copy = play.copy("a")
    assert (copy.leases, copy.last_used_s, play.residency.counts.hits) == (0, play.now_s, 1)
    assert copy.uses == pytest.approx(2.0, abs=0.01)


def test_the_same_bytes_under_two_names_are_one_copy() -> None:
    play = Play()
    play.declare("a", key="same")
    play.declare("b", key="same")
    first, second = play.request("a"), play.request("b")
    play.finish_fetch("a")
    play.finish_fetch("b")
    assert list(play.orders.loading) == ["same"]
    play.finish_load("a")
    assert first.key == second.key == "same"


def test_a_shared_copy_stays_until_its_last_model_is_withdrawn() -> None:
    play = Play()
    play.declare("a", key="same")
    play.declare("b", key="same")
    play.load("a", "b")
    play.send(ev.ModelForgotten(id_of("a")))
    assert play.state("b") == "ready"
    play.send(ev.ModelForgotten(id_of("b")))
    assert list(play.orders.freeing) == ["same"]


def test_loads_run_in_parallel_up_to_the_limit() -> None:
    play = Play(loads_parallel=2)
    for name in "abc":
        play.declare(name)
        play.request(name)
        play.finish_fetch(name)
    assert list(play.orders.loading) == ["a!", "b!"]
    play.fail_load("a")
    assert list(play.orders.loading) == ["b!", "c!"]


def test_a_load_whose_waiters_left_is_kept() -> None:
    play = Play()
    play.declare("a")
    request = play.request("a")
    play.finish_fetch("a")
    play.leave(request)
    play.finish_load("a")
    assert play.state("a") == "ready"


def test_releasing_without_a_lease_is_a_bug() -> None:
    play = Play()
    play.declare("a")
    play.load("a")
    with pytest.raises(AssertionError, match="more often than acquired"):
        play.send(ev.LeaseReleased("a!"))


def test_an_illegal_move_is_a_bug_that_tells_the_history_of_its_copy() -> None:
    play = Play()
    for name in "ab":
        play.declare(name)
    play.load("a", "b")
    with pytest.raises(
        state_table.IllegalMove,
        match=r"a copy that is ready can't be freed; moves before: requested, admitted, loaded$",
    ):
        play.send(ev.CopyFreed(play.key("a")))


# Models that are withdrawn or replaced


def test_a_withdrawn_model_leaves_memory_with_its_last_lease() -> None:
    play = Play()
    play.declare("a")
    play.load("a")
    request = play.request("a")
    play.send(ev.ModelForgotten(id_of("a")))
    assert play.free_orders == []
    play.release(request)
    assert play.free_orders == ["a"]
    play.finish_free("a")
    assert not play.residency.copies
    assert not play.residency.bindings


def test_a_withdrawn_model_loses_its_pin() -> None:
    play = Play()
    play.declare("a")
    play.load("a")
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    play.send(ev.ModelForgotten(id_of("a")))
    assert play.free_orders == ["a"]
    play.finish_free("a")
    play.load("a")
    assert not play.copy("a").pins


def test_a_replaced_model_keeps_its_pin() -> None:
    play = Play()
    play.declare("a", key="old")
    play.load("a")
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    play.send(ev.ModelForgotten(id_of("a"), is_replaced=True))
    play.declare("a", key="new")
    play.load("a")
    assert play.copy("a").pins


def test_a_model_withdrawn_during_its_load_is_freed_afterwards() -> None:
    play = Play()
    play.declare("a")
    play.request("a")
    play.finish_fetch("a")
    play.send(ev.ModelForgotten(id_of("a")))
    assert play.state("a") == "loading"
    play.finish_load("a")
    assert play.free_orders == ["a"]


def test_a_withdrawn_model_whose_load_fails_is_forgotten() -> None:
    play = Play()
    play.declare("a")
    play.request("a")
    play.finish_fetch("a")
    play.send(ev.ModelForgotten(id_of("a")))
    play.fail_load("a")
    assert not play.residency.copies


def test_forgetting_an_unknown_model_changes_nothing() -> None:
    play = Play()
    assert play.send(ev.ModelForgotten(id_of("a"))) == []


# Extra bytes of a load


def test_a_load_without_extra_bytes_starts_with_less_free_memory() -> None:
    play = Play(100)
    play.declare("a", 40)
    play.declare("b", 40)
    play.load("b")
    request = play.request("a")
    play.finish_attempt(next(iter(play.orders.fetching)), load_extra_bytes=40)
    assert play.free_orders == ["b"]
    play.send(ev.LoadOverheadKnown(play.key("a"), 0))
    assert play.orders.loading == {play.key("a"): None}
    play.finish_load("a")
    assert request.key == play.key("a")


def test_a_load_in_progress_keeps_its_extra_bytes() -> None:
    play = Play(100)
    play.declare("a", 40)
    play.request("a")
    play.finish_attempt(next(iter(play.orders.fetching)), load_extra_bytes=20)
    play.send(ev.LoadOverheadKnown(play.key("a"), 0))
    assert play.copy("a").booked.host_bytes == 60
    assert play.copy("a").load_extra_bytes == 20
    play.send(ev.LoadOverheadKnown("unknown", 5))


def test_memory_is_short_if_evicting_all_idle_copies_is_too_little() -> None:
    play = Play(100)
    play.declare("a", 60)
    play.load("a")
    play.measure_memory(30)
    assert not play.residency.is_short
    in_use = play.request("a")
    play.measure_memory(70)
    assert play.residency.is_short
    play.release(in_use)
    assert not play.residency.is_short


@pytest.mark.parametrize(
    ("free_bytes", "overhead_bytes"), [(0, 500), (30, 470), (100, 400), (900, 400)]
)
def test_gaps_in_the_heap_count_as_free_up_to_a_part_of_the_budget(
    free_bytes: int, overhead_bytes: int
) -> None:
    play = Play(1600)
    play.declare("a", 600)
    play.load("a")
    play.send(ev.MemoryMeasured(1100, free_bytes))
    assert play.residency.account.overhead_bytes == overhead_bytes
    play.send(ev.MemoryMeasured(0, 900))
    assert play.residency.account.overhead_bytes == 0


def test_memory_is_short_if_a_load_has_waited_for_long() -> None:
    play = Play(100)
    for name in ("a", "b"):
        play.declare(name, 60)
    play.load("a")
    play.request("a")
    play.request("b")
    play.finish_fetch("b")
    assert not play.residency.is_short
    play.wait(play.residency.limits.patience_s * 0.6)
    assert play.residency.is_short
