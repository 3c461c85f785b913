"""Copies that leave the GPU and stay in host memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, Request, id_of


def worker_with(sizes: Mapping[str, int], host: int = 100, gpu: int = 100, **more: Any) -> Play:
    """Return a worker with a GPU and ready models of these sizes on it, used in that order."""
    play = Play(host, gpu, **more)
    for name, size in sizes.items():
        play.declare(name, 1, size, can_offload=True)
    play.load(*sizes)
    return play


def request_new(play: Play, name: str, gpu: int) -> Request:
    """Request another model, whose artifact is fetched, a second later."""
    play.now_s += 1.0
    play.declare(name, 1, gpu, can_offload=True)
    request = play.request(name)
    play.finish_fetch(name)
    return request


def with_offloaded(sizes: Mapping[str, int], **more: Any) -> Play:
    """Return a worker on which the first models were offloaded for the last."""
    play = worker_with(dict(list(sizes.items())[:-1]), **more)
    *_, last = sizes
    request = request_new(play, last, sizes[last])
    for key in list(play.orders.offloading):
        play.finish_offload(key.rstrip("!"))
    play.finish_load(last)
    play.release(request)
    return play


def test_an_idle_copy_leaves_the_gpu_for_host_memory() -> None:
    play = worker_with({"a": 60})
    request = request_new(play, "b", 60)
    assert play.state("a") == "offloading"
    assert play.residency.account.booked == (61, 60)
    play.finish_offload("a")
    assert play.residency.account.booked.host_bytes == 61 + 1
    play.finish_load("b")
    assert request.key


def test_an_offloaded_copy_comes_back_without_its_file() -> None:
    play = with_offloaded({"a": 60, "b": 60}, host=200)
    request = play.request("a")
    assert play.state("b") == "offloading"
    play.finish_offload("b")
    assert list(play.orders.onloading) == ["a!"]
    assert not play.orders.loading
    play.finish_onload("a")
    assert request.key
    assert play.copy("a").booked == (1, 60)


def test_a_copy_is_freed_if_host_memory_is_full() -> None:
    play = worker_with({"a": 60}, host=40)
    request_new(play, "b", 60)
    assert play.free_orders == ["a"]


def test_a_copy_that_can_not_be_offloaded_is_freed() -> None:
    play = Play(100, 100)
    play.declare("a", 1, 60)
    play.load("a")
    request_new(play, "b", 60)
    assert play.free_orders == ["a"]


def test_an_offloaded_copy_is_freed_for_host_memory() -> None:
    play = with_offloaded({"a": 60, "b": 60})
    play.declare("c", 60)
    play.request("c")
    play.finish_fetch("c")
    assert play.free_orders == ["a"]


def test_offloaded_copies_are_freed_for_one_that_is_offloaded_now() -> None:
    play = with_offloaded({"a": 60, "b": 60})
    request = request_new(play, "c", 60)
    assert play.free_orders == ["a"]
    assert play.state("b") == "ready"
    play.finish_free("a")
    assert play.state("b") == "offloading"
    play.finish_offload("b")
    play.finish_load("c")
    assert request.key


def test_no_other_copy_leaves_while_an_offload_is_postponed() -> None:
    play = with_offloaded({"a": 60, "b": 60})
    request_new(play, "c", 60)
    request_new(play, "d", 10)
    assert play.free_orders == ["a"]
    assert not play.orders.offloading
    play.finish_free("a")
    assert play.state("b") == "offloading"
    assert "d!" in play.orders.loading


def test_a_request_during_the_offload_brings_the_copy_back() -> None:
    play = worker_with({"a": 60}, host=200)
    first = request_new(play, "b", 60)
    second = play.request("a")
    assert second.is_waiting
    play.finish_offload("a")
    play.finish_load("b")
    play.release(first)
    play.finish_offload("b")
    play.finish_onload("a")
    assert second.key


def test_a_request_that_leaves_keeps_the_copy_offloaded() -> None:
    play = with_offloaded({"a": 60, "b": 60})
    play.request("b")
    request = play.request("a")
    assert play.state("a") == "queued"
    play.leave(request)
    assert play.state("a") == "offloaded"


def test_a_copy_whose_offload_fails_is_freed() -> None:
    play = worker_with({"a": 60})
    request = request_new(play, "b", 60)
    play.fail_move("a")
    assert play.free_orders == ["a"]
    play.finish_free("a")
    play.finish_load("b")
    assert request.key


def test_a_copy_whose_onload_fails_is_loaded_from_its_file() -> None:
    play = with_offloaded({"a": 60, "b": 60}, host=200)
    request = play.request("a")
    play.finish_offload("b")
    play.fail_move("a")
    play.finish_free("a")
    play.finish_load("a")
    assert request.key


def test_the_next_load_starts_after_a_failed_onload() -> None:
    play = with_offloaded({"a": 60, "b": 60}, host=200, loads_parallel=1)
    play.request("a")
    play.finish_offload("b")
    request_new(play, "c", 10)
    assert not play.orders.loading
    play.fail_move("a")
    assert list(play.orders.loading) == ["c!"]


@pytest.mark.parametrize("event", [ev.ModelForgotten(id_of("a")), ev.UnloadRequested(id_of("a"))])
def test_an_offloaded_copy_that_is_not_wanted_is_freed(event: ev.Event) -> None:
    play = with_offloaded({"a": 60, "b": 60})
    play.send(event)
    assert play.free_orders == ["a"]


@pytest.mark.parametrize("event", [ev.ModelForgotten(id_of("a")), ev.UnloadRequested(id_of("a"))])
def test_a_copy_that_is_not_wanted_is_freed_after_its_offload(event: ev.Event) -> None:
    play = worker_with({"a": 60})
    request_new(play, "b", 60)
    play.send(event)
    assert play.free_orders == []
    play.finish_offload("a")
    assert play.free_orders == ["a"]


def test_an_offloaded_copy_with_a_waiter_is_unloaded_after_its_use() -> None:
    play = with_offloaded({"a": 60, "b": 60}, host=200)
    in_use = play.request("b")
    request = play.request("a")
    play.send(ev.UnloadRequested(id_of("a")))
    play.release(in_use)
    play.finish_offload("b")
    play.finish_onload("a")
    play.release(request)
    assert play.free_orders == ["a"]


def test_a_pinned_copy_stays_on_the_gpu() -> None:
    play = worker_with({"a": 50, "b": 50})
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    request_new(play, "c", 50)
    assert list(play.orders.offloading) == ["b!"]


def test_a_copy_bigger_than_its_hint_offloads_others() -> None:
    play = worker_with({"a": 60})
    play.declare("b", 1, 70, hint=(1, 20), can_offload=True)
    play.request("b")
    play.finish_fetch("b")
    play.finish_load("b")
    assert list(play.orders.offloading) == ["a!"]


def test_the_pin_of_a_copy_to_be_onloaded_keeps_only_its_need() -> None:
    play = with_offloaded({"a": 60, "b": 60})
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    play.request("a")
    play.declare("c", 90)
    request = play.request("c")
    play.finish_fetch("c")
    assert request.error is None


def test_the_pin_of_an_offloaded_copy_keeps_all_its_bytes() -> None:
    play = with_offloaded({"a": 60, "b": 60})
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    play.declare("c", 10, 10)
    request = play.request("c")
    play.finish_attempt(next(iter(play.orders.fetching)), load_extra_bytes=60)
    play.finish_load("c")
    assert request.key == "c!"
