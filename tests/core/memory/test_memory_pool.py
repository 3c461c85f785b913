"""The copies that are in memory, and the reasons for which they leave."""

from __future__ import annotations

from typing import Any

import pytest

from meshserve import errors
from meshserve.core.memory import eviction
from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, Request, id_of


def worker_with(*names: str, host: int = 100, size: int = 40, **more: Any) -> Play:
    """Return a worker with these models of one size in memory, used in that order."""
    play = Play(host, **more)
    for name in names:
        play.declare(name, size)
    play.load(*names)
    return play


def request_new(play: Play, name: str, host: int = 40, gpu: int = 0, **more: Any) -> Request:
    """Request another model, whose artifact is fetched."""
    play.declare(name, host, gpu, **more)
    request = play.request(name)
    play.finish_fetch(name)
    return request


# Making room


def test_the_least_recently_used_leaves() -> None:
    play = worker_with("a", "b")
    play.load("a")
    request_new(play, "c")
    assert play.free_orders == ["b"]
    assert not play.orders.loading
    play.finish_free("b")
    assert list(play.orders.loading) == ["c!"]
    assert play.residency.counts.evictions == 1


def test_the_end_of_a_lease_counts_as_a_use() -> None:
    play = worker_with("a", "b")
    in_use = play.request("a")
    play.load("b")
    play.now_s += 1.0
    play.release(in_use)
    request_new(play, "c")
    assert play.free_orders == ["b"]


def test_a_use_between_two_events_counts() -> None:
    play = worker_with("a", "b")
    play.now_s += 1.0
    play.residency.record_use(play.key("a"), play.now_s)
    request_new(play, "c")
    assert play.free_orders == ["b"]


def test_uses_are_counted_and_lose_their_weight_with_time() -> None:
    play = worker_with("a")
    play.now_s += eviction.HALF_LIFE_S
    for _ in range(2):
        play.request("a")
    assert play.copy("a").uses == pytest.approx(2.5)


def test_a_copy_without_a_request_left_ranks_as_just_used() -> None:
    play = worker_with("a")
    play.declare("b", 40)
    play.now_s += 1.0
    request = play.request("b")
    play.finish_fetch("b")
    play.leave(request)
    play.finish_load("b")
    request_new(play, "c")
    assert play.free_orders == ["a"]


def test_gdsf_frees_what_is_cheap_to_bring_back() -> None:
    play = Play(100, policy=eviction.gdsf)
    for name, load_s in (("slow", 9.0), ("quick", 0.1)):
        play.declare(name, 40)
        request = play.request(name)
        play.finish_fetch(name)
        play.finish_load(name, load_s)
        play.release(request)
    play.load("quick")
    request_new(play, "c")
    assert play.free_orders == ["quick"]


def test_gdsf_evicts_a_copy_that_was_used_often_long_ago() -> None:
    play = Play(100, policy=eviction.gdsf)
    play.declare("once hot", 40)
    play.load(*["once hot"] * 5)
    for number in range(20):
        request_new(play, f"m{number}", 40)
        for key in list(play.orders.freeing):
            play.finish_free_of(key)
        play.finish_load(f"m{number}")
        play.end_lease(f"m{number}!")
        if play.state("once hot") == "absent":
            return
    pytest.fail("it never left")


def test_a_copy_in_use_is_never_freed() -> None:
    play = worker_with("a", "b")
    leases = [play.request("a"), play.request("b")]
    waiting = request_new(play, "c")
    assert play.free_orders == []
    play.release(leases[1])
    assert play.free_orders == ["b"]
    play.finish_free("b")
    play.finish_load("c")
    assert waiting.key


def test_a_copy_is_evictable_after_the_last_of_several_leases() -> None:
    play = worker_with("a", "b")
    leases = [play.request("a"), play.request("a"), play.request("b")]
    request_new(play, "c")
    play.release(leases[0])
    assert play.free_orders == []
    play.release(leases[1])
    assert play.free_orders == ["a"]


def test_an_unpin_before_the_load_is_remembered() -> None:
    play = worker_with("a")
    play.send(ev.PinSet(id_of("b"), is_pinned=True))
    play.send(ev.PinSet(id_of("b"), is_pinned=False))
    play.declare("b", 40)
    play.load("b")
    request_new(play, "c", 90)
    assert play.free_orders == ["a", "b"]


def test_a_pinned_copy_is_never_freed() -> None:
    play = worker_with("a", "b")
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    request_new(play, "c")
    assert play.free_orders == ["b"]


def test_a_pin_holds_from_before_the_load() -> None:
    play = worker_with()
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    play.declare("a", 40)
    play.declare("b", 40)
    play.load("a", "b")
    request_new(play, "c")
    assert play.free_orders == ["b"]


def test_an_unpinned_copy_may_leave_again() -> None:
    play = worker_with("a", "b")
    for name in "ab":
        play.send(ev.PinSet(id_of(name), is_pinned=True))
    request = request_new(play, "c")
    assert isinstance(request.error, errors.ModelTooBig)
    play.send(ev.PinSet(id_of("a"), is_pinned=False))
    play.request("c")
    assert play.free_orders == ["a"]


def test_no_copy_is_evicted_if_all_together_are_too_small() -> None:
    play = worker_with("a", "b", size=20)
    play.request("b")
    request_new(play, "c", 90)
    assert play.free_orders == []


def test_a_model_bigger_than_the_budget_is_refused_at_once() -> None:
    play = worker_with("a", "b")
    request = request_new(play, "big", 101)
    assert isinstance(request.error, errors.ModelTooBig)
    assert "could free at most" in request.refusal.message
    assert not play.orders.loading
    assert play.free_orders == []


def test_the_refusal_of_a_model_too_big_for_the_gpu_names_the_gpu() -> None:
    play = Play(100, gpu=50)
    assert "of GPU memory" in request_new(play, "big", 10, 60).refusal.message


# Measured footprints


def test_a_copy_smaller_than_its_hint_leaves_room() -> None:
    play = worker_with()
    request_new(play, "a", 10, hint=(90, 0))
    play.declare("b", 50)
    play.request("b")
    play.finish_fetch("b")
    assert list(play.orders.loading) == ["a!"]
    play.finish_load("a")
    assert list(play.orders.loading) == ["b!"]


def test_a_copy_bigger_than_its_hint_evicts_idle_ones() -> None:
    play = worker_with("a", "b")
    request = request_new(play, "c", 50, hint=(20, 0))
    play.finish_load("c")
    assert request.key
    assert play.free_orders == ["a"]


def test_a_copy_too_big_for_now_is_freed_and_loaded_again_later() -> None:
    play = worker_with("a", "b")
    leases = [play.request("a"), play.request("b")]
    request = request_new(play, "c", 50, hint=(20, 0))
    play.finish_load("c")
    assert play.free_orders == ["c"]
    play.finish_free("c")
    assert request.is_waiting
    play.release(*leases)
    play.finish_free("a")
    play.finish_load("c")
    assert request.key


def test_a_copy_bigger_than_the_budget_is_refused_without_evictions() -> None:
    play = worker_with("a")
    request = request_new(play, "c", 120, hint=(20, 0))
    play.finish_load("c")
    assert isinstance(request.error, errors.ModelTooBig)
    assert play.free_orders == ["c"]


def test_the_next_load_reserves_what_the_last_one_took() -> None:
    play = worker_with()
    play.declare("a", 60, hint=(10, 0))
    play.load("a")
    play.send(ev.UnloadRequested(id_of("a")))
    play.finish_free("a")
    play.request("a")
    assert play.copy("a").booked.host_bytes == 60


def test_a_measured_footprint_wins_against_another_names_hint() -> None:
    play = worker_with()
    play.declare("a", 60, hint=(10, 0), key="same")
    play.load("a")
    play.declare("b", 60, hint=(5, 0), key="same")
    play.request("b")
    play.finish_fetch("b")
    assert play.copy("b").need.host_bytes == 60


# Overhead of the process


def test_memory_that_no_copy_accounts_for_is_taken_off_the_budget() -> None:
    play = worker_with("a", "b")
    play.measure_memory(30)
    assert play.free_orders == ["a"]
    play.finish_free("a")
    request_new(play, "c", 40)
    assert play.free_orders == ["b"]


def test_all_idle_copies_are_evicted_if_they_are_too_few() -> None:
    play = worker_with("a", "b")
    play.request("b")
    play.measure_memory(90)
    assert play.free_orders == ["a"]


def test_a_load_starts_when_the_process_gives_memory_back() -> None:
    play = worker_with()
    play.measure_memory(20)
    play.measure_memory(70)
    request_new(play, "a", 50)
    assert not play.orders.loading
    play.measure_memory(50)
    assert list(play.orders.loading) == ["a!"]


def test_a_model_that_does_not_fit_beside_the_overhead_is_refused_later() -> None:
    play = worker_with(patience_s=2.0)
    play.measure_memory(0)
    play.measure_memory(70)
    request = request_new(play, "a", 50)
    # The requests under way may take it, and give it back.
    for _ in range(9):
        play.wait(1.0)
        play.measure_memory(70)
        assert request.is_waiting
    for _ in range(12):
        play.wait(1.0)
        play.measure_memory(70)
    assert isinstance(request.error, errors.ModelTooBig)


def test_a_peak_of_the_process_refuses_no_model_that_has_waited_for_long() -> None:
    play = worker_with(patience_s=2.0)
    play.measure_memory(0)
    play.measure_memory(70)
    request = request_new(play, "a", 50)
    for _ in range(5):
        play.wait(1.0)
        play.measure_memory(70)
    play.measure_memory(10)
    assert list(play.orders.loading) == ["a!"]
    assert request.is_waiting


def test_copies_in_use_stay_though_the_process_takes_the_whole_budget() -> None:
    play = worker_with("a", "b")
    leases = [play.request("a"), play.request("b")]
    play.measure_memory(100)
    assert play.free_orders == []
    play.release(*leases)
    play.measure_memory(100)
    assert play.free_orders == ["a", "b"]
