"""Copies that leave the GPU and stay in host memory."""

from __future__ import annotations

import pytest

from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, named


def stage(sizes, host=100, gpu=100, **more):
    """A worker with a GPU, on which models with these bytes on it are ready, used in that order."""
    play = Play(host, gpu, **more)
    for name, size in sizes.items():
        play.declare(name, 1, size, can_offload=True)
    play.bring(*sizes)
    return play


def want(play, name, gpu):
    """A request for another model, whose file is there, a second later."""
    play.now_s += 1.0
    play.declare(name, 1, gpu, can_offload=True)
    request = play.ask(name)
    play.fetched(name)
    return request


def parked(sizes, **more):
    """A worker on which the first of these models has made way for the last."""
    play = stage(dict(list(sizes.items())[:-1]), **more)
    *_, last = sizes
    request = want(play, last, sizes[last])
    for key in list(play.orders.parking):
        play.has_parked(key.rstrip("!"))
    play.loaded(last)
    play.release(request)
    return play


def test_an_idle_copy_leaves_the_gpu_for_host_memory():
    play = stage({"a": 60})
    request = want(play, "b", 60)
    assert play.state("a") == "offloading"
    assert play.residency.account.booked == (61, 60)
    play.has_parked("a")
    assert play.residency.account.booked.host_bytes == 61 + 1
    play.loaded("b")
    assert request.key


def test_it_comes_back_without_its_file():
    play = parked({"a": 60, "b": 60}, host=200)
    request = play.ask("a")
    assert play.state("b") == "offloading"
    play.has_parked("b")
    assert list(play.orders.unparking) == ["a!"]
    assert not play.orders.loading
    play.has_unparked("a")
    assert request.key
    assert play.copy("a").booked == (1, 60)


def test_it_is_freed_where_host_memory_has_no_room():
    play = stage({"a": 60}, host=40)
    want(play, "b", 60)
    assert play.free_orders == ["a"]


def test_what_can_not_be_parked_is_freed():
    play = Play(100, 100)
    play.declare("a", 1, 60)
    play.bring("a")
    want(play, "b", 60)
    assert play.free_orders == ["a"]


def test_a_parked_copy_is_freed_for_host_memory():
    play = parked({"a": 60, "b": 60})
    play.declare("c", 60)
    play.ask("c")
    play.fetched("c")
    assert play.free_orders == ["a"]


def test_older_parked_copies_make_way_for_one_that_is_parked_now():
    play = parked({"a": 60, "b": 60})
    request = want(play, "c", 60)
    assert play.free_orders == ["a"]
    assert play.state("b") == "ready"
    play.freed("a")
    assert play.state("b") == "offloading"
    play.has_parked("b")
    play.loaded("c")
    assert request.key


def test_nothing_more_leaves_while_room_for_parking_is_being_made():
    play = parked({"a": 60, "b": 60})
    want(play, "c", 60)
    want(play, "d", 10)
    assert play.free_orders == ["a"]
    assert not play.orders.parking
    play.freed("a")
    assert play.state("b") == "offloading"
    assert "d!" in play.orders.loading


def test_a_request_while_it_parks_brings_it_back():
    play = stage({"a": 60}, host=200)
    first = want(play, "b", 60)
    second = play.ask("a")
    assert second.is_waiting
    play.has_parked("a")
    play.loaded("b")
    play.release(first)
    play.has_parked("b")
    play.has_unparked("a")
    assert second.key


def test_who_gives_up_leaves_it_parked():
    play = parked({"a": 60, "b": 60})
    play.ask("b")
    request = play.ask("a")
    assert play.state("a") == "queued"
    play.leave(request)
    assert play.state("a") == "offloaded"


def test_a_copy_lost_on_its_way_off_the_gpu_is_freed():
    play = stage({"a": 60})
    request = want(play, "b", 60)
    play.move_failed("a")
    assert play.free_orders == ["a"]
    play.freed("a")
    play.loaded("b")
    assert request.key


def test_a_copy_lost_on_its_way_back_is_loaded_from_its_file():
    play = parked({"a": 60, "b": 60}, host=200)
    request = play.ask("a")
    play.has_parked("b")
    play.move_failed("a")
    play.freed("a")
    play.loaded("a")
    assert request.key


def test_a_lost_copy_gives_its_place_on_the_way_in_to_the_next():
    play = parked({"a": 60, "b": 60}, host=200, loads_parallel=1)
    play.ask("a")
    play.has_parked("b")
    want(play, "c", 10)
    assert not play.orders.loading
    play.move_failed("a")
    assert list(play.orders.loading) == ["c!"]


@pytest.mark.parametrize("event", [ev.ModelForgotten(named("a")), ev.UnloadRequested(named("a"))])
def test_a_parked_copy_that_nobody_wants_is_freed(event):
    play = parked({"a": 60, "b": 60})
    play.tell(event)
    assert play.free_orders == ["a"]


@pytest.mark.parametrize("event", [ev.ModelForgotten(named("a")), ev.UnloadRequested(named("a"))])
def test_a_copy_that_nobody_wants_any_more_while_it_parks_is_freed(event):
    play = stage({"a": 60})
    want(play, "b", 60)
    play.tell(event)
    assert play.free_orders == []
    play.has_parked("a")
    assert play.free_orders == ["a"]


def test_a_parked_copy_that_is_wanted_is_unloaded_after_its_use():
    play = parked({"a": 60, "b": 60}, host=200)
    in_use = play.ask("b")
    request = play.ask("a")
    play.tell(ev.UnloadRequested(named("a")))
    play.release(in_use)
    play.has_parked("b")
    play.has_unparked("a")
    play.release(request)
    assert play.free_orders == ["a"]


def test_a_pinned_copy_stays_on_the_gpu():
    play = stage({"a": 50, "b": 50})
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    want(play, "c", 50)
    assert list(play.orders.parking) == ["b!"]


def test_a_copy_bigger_on_the_gpu_than_thought_parks_others():
    play = stage({"a": 60})
    play.declare("b", 1, 70, hint=(1, 20), can_offload=True)
    play.ask("b")
    play.fetched("b")
    play.loaded("b")
    assert list(play.orders.parking) == ["a!"]


def test_a_pinned_copy_on_its_way_back_keeps_no_more_of_host_memory_than_it_will():
    play = parked({"a": 60, "b": 60})
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    play.ask("a")
    play.declare("c", 90)
    request = play.ask("c")
    play.fetched("c")
    assert request.error is None


def test_a_parked_copy_that_is_pinned_keeps_all_that_it_takes():
    play = parked({"a": 60, "b": 60})
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    play.declare("c", 10, 10)
    request = play.ask("c")
    play.answer_fetch(next(iter(play.orders.fetching)), load_extra_bytes=60)
    play.loaded("c")
    assert request.key == "c!"
