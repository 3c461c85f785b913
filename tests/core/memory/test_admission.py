"""The order in which copies come into memory, and the evictions for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshserve import errors
from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, Request, id_of


def worker_with(sizes: Mapping[str, int], **more: Any) -> Play:
    """Return a worker with models of these sizes in memory, used in that order."""
    play = Play(100, **more)
    for name, size in sizes.items():
        play.declare(name, size)
    play.load(*sizes)
    return play


def request_new(play: Play, name: str, host: int) -> Request:
    """Request another model, whose artifact is fetched."""
    play.declare(name, host)
    request = play.request(name)
    play.finish_fetch(name)
    return request


def test_loads_start_in_the_order_of_arrival() -> None:
    play = worker_with({}, loads_parallel=1)
    for name in "abc":
        request_new(play, name, 10)
    order: list[str] = []
    while play.orders.loading:
        order += play.orders.loading
        play.finish_load_of(order[-1])
    assert order == ["a!", "b!", "c!"]


def test_room_is_made_for_as_many_as_may_load_at_once() -> None:
    play = worker_with({"a": 50, "b": 50}, loads_parallel=2)
    request_new(play, "c", 50)
    request_new(play, "d", 50)
    assert play.free_orders == ["a", "b"]


def test_no_copy_is_evicted_for_a_load_beyond_the_parallel_ones() -> None:
    play = worker_with({"a": 50, "b": 50}, loads_parallel=1)
    request_new(play, "c", 50)
    request_new(play, "d", 50)
    assert play.free_orders == ["a"]


def test_room_that_was_made_for_loads_ahead_is_not_taken() -> None:
    play = worker_with({"a": 50, "b": 50})
    request_new(play, "c", 60)
    request_new(play, "d", 50)
    assert play.free_orders == ["a", "b"]
    play.finish_free("a")
    assert not play.orders.loading
    play.finish_free("b")
    assert list(play.orders.loading) == ["c!"]


def test_room_that_loads_ahead_do_not_need_is_taken_at_once() -> None:
    play = worker_with({"a": 80})
    request_new(play, "b", 60)
    request_new(play, "c", 20)
    assert play.free_orders == ["a"]
    assert list(play.orders.loading) == ["c!"]


def test_a_load_that_waits_for_leases_is_overtaken() -> None:
    play = worker_with({"a": 80})
    play.request("a")
    request_new(play, "b", 60)
    request_new(play, "c", 20)
    assert list(play.orders.loading) == ["c!"]


def test_copies_in_use_are_drained_for_an_impatient_load() -> None:
    play = worker_with({"a": 80}, patience_s=2.0)
    user = play.request("a")
    request = request_new(play, "b", 60)
    play.wait(1.0)
    assert play.state("a") == "ready"
    play.wait(1.5)
    assert play.state("a") == "draining"
    late = play.request("a")
    play.release(user)
    play.finish_free("a")
    play.finish_load("b")
    assert request.key
    play.release(request)
    play.finish_free("b")
    play.finish_load("a")
    assert late.key


def test_no_copy_in_use_is_drained_for_a_load_that_is_refused() -> None:
    play = worker_with({"a": 50, "b": 50})
    play.request("a")
    play.request("b")
    play.send(ev.PinSet(id_of("b"), is_pinned=True))
    request = request_new(play, "c", 60)
    play.wait(3.0)
    assert isinstance(request.error, errors.ModelTooBig)
    assert play.state("a") == "ready"


def test_no_copy_in_use_is_drained_if_all_together_are_too_small() -> None:
    play = worker_with({"a": 30})
    play.request("a")
    request_new(play, "hangs", 60)
    request_new(play, "c", 60)
    play.wait(3.0)
    assert play.state("a") == "ready"
    request_new(play, "d", 10)
    assert list(play.orders.loading) == ["hangs!", "d!"]


def test_no_more_copies_are_drained_than_needed() -> None:
    play = worker_with({"a": 50, "b": 50})
    play.request("a")
    play.request("b")
    request_new(play, "c", 40)
    for _ in range(3):
        play.wait(3.0)
    assert sorted([play.state("a"), play.state("b")]) == ["draining", "ready"]


def test_idle_copies_are_evicted_together_with_drained_ones() -> None:
    play = worker_with({"a": 50, "b": 50})
    play.request("a")
    request_new(play, "c", 90)
    play.wait(3.0)
    assert play.state("a") == "draining"
    assert play.free_orders == ["b"]


def test_a_load_that_waits_for_drained_copies_keeps_its_claim() -> None:
    play = worker_with({"a": 50, "b": 40})
    user = play.request("a")
    first = request_new(play, "c", 60)
    play.wait(3.0)
    assert play.free_orders == []
    second = request_new(play, "d", 50)
    third = request_new(play, "e", 40)
    play.release(user)
    assert play.free_orders == ["a", "b"]
    play.finish_free("a")
    play.finish_load("c")
    assert first.key
    assert second.is_waiting
    assert third.is_waiting
    assert list(play.orders.loading) == []
    play.finish_free("b")
    assert list(play.orders.loading) == ["e!"]


def test_a_load_that_is_given_up_lets_the_next_start() -> None:
    play = worker_with({"a": 100})
    play.request("a")
    request = request_new(play, "b", 60)
    request_new(play, "c", 10)
    play.wait(3.0)
    play.leave(request)
    assert play.state("b") == "absent"
    assert play.state("c") == "queued"
    play.end_lease("a!")
    play.finish_free("a")
    assert list(play.orders.loading) == ["c!"]


def test_a_pin_that_leaves_too_little_room_refuses_a_waiting_load() -> None:
    play = worker_with({"a": 80})
    play.request("a")
    request = request_new(play, "b", 60)
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    assert isinstance(request.error, errors.ModelTooBig)
    assert play.state("b") == "absent"


def test_of_two_pinned_models_that_do_not_fit_together_the_first_stays() -> None:
    play = worker_with({})
    for name in "ab":
        play.send(ev.PinSet(id_of(name), is_pinned=True))
    first = request_new(play, "a", 60)
    second = request_new(play, "b", 60)
    assert isinstance(second.error, errors.ModelTooBig)
    play.finish_load("a")
    assert first.key


def test_a_model_that_can_never_fit_is_refused_while_others_load() -> None:
    play = worker_with({}, loads_parallel=1)
    request_new(play, "a", 10)
    request = request_new(play, "b", 101)
    assert isinstance(request.error, errors.ModelTooBig)


def test_the_next_load_starts_after_a_failed_one() -> None:
    play = worker_with({}, loads_parallel=1)
    request_new(play, "a", 10)
    request_new(play, "b", 10)
    play.fail_load("a")
    assert list(play.orders.loading) == ["b!"]


def test_the_next_load_starts_after_one_that_turned_out_too_big() -> None:
    play = worker_with({"a": 60}, loads_parallel=1)
    play.request("a")
    play.declare("b", 60, hint=(10, 0))
    play.request("b")
    play.finish_fetch("b")
    request_new(play, "c", 10)
    play.finish_load("b")
    assert play.free_orders == ["b"]
    play.finish_free("b")
    assert list(play.orders.loading) == ["c!"]
