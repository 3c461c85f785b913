"""Copies that are unloaded: on request, or for being idle."""

from __future__ import annotations

from typing import Any

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


def test_a_model_is_unloaded_when_asked_to() -> None:
    play = worker_with("a")
    play.send(ev.UnloadRequested(id_of("a")))
    assert play.free_orders == ["a"]
    assert play.residency.counts.evictions == 0


def test_a_model_in_use_is_unloaded_with_its_last_lease() -> None:
    play = worker_with("a")
    user = play.request("a")
    play.send(ev.UnloadRequested(id_of("a")))
    late = play.request("a")
    assert late.is_waiting
    play.release(user)
    play.finish_free("a")
    play.finish_load("a")
    assert late.key


def test_a_model_unloaded_during_its_load_serves_its_waiters_first() -> None:
    play = worker_with()
    request = request_new(play, "a")
    play.send(ev.UnloadRequested(id_of("a")))
    play.finish_load("a")
    assert request.key
    play.release(request)
    assert play.free_orders == ["a"]


def test_a_pin_cancels_an_unload() -> None:
    play = worker_with()
    request = request_new(play, "a")
    play.send(ev.UnloadRequested(id_of("a")))
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    play.finish_load("a")
    play.release(request)
    assert play.state("a") == "ready"


def test_a_pinned_model_is_not_unloaded() -> None:
    play = worker_with("a")
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    play.send(ev.UnloadRequested(id_of("a")))
    play.send(ev.PinSet(id_of("a"), is_pinned=False))
    assert play.state("a") == "ready"


def test_unloading_an_absent_model_changes_nothing() -> None:
    play = worker_with("a")
    play.send(ev.UnloadRequested(id_of("unknown")))
    play.send(ev.UnloadRequested(id_of("a")))
    play.send(ev.UnloadRequested(id_of("a")))
    play.finish_free("a")
    play.send(ev.UnloadRequested(id_of("a")))
    play.load("a")
    assert play.state("a") == "ready"


def test_idle_models_are_unloaded_after_their_time() -> None:
    play = worker_with("a", "b", idle_unload_s=60.0)
    play.wait(30.0)
    play.load("b")
    play.wait(40.0)
    assert play.free_orders == ["a"]
    play.wait(60.0)
    assert play.free_orders == ["a", "b"]


def test_the_idle_time_begins_with_the_load() -> None:
    play = worker_with("a", idle_unload_s=60.0)
    play.send(ev.UnloadRequested(id_of("a")))
    play.finish_free("a")
    request = play.request("a")
    play.now_s += 100.0
    play.leave(request)
    play.finish_load("a")
    play.wait(1.0)
    assert play.state("a") == "ready"


def test_idle_models_stay_without_a_limit() -> None:
    play = worker_with("a")
    play.wait(1e9)
    assert play.state("a") == "ready"


def test_used_and_pinned_models_are_not_idle() -> None:
    play = worker_with("a", "b", idle_unload_s=60.0)
    play.request("a")
    play.send(ev.PinSet(id_of("b"), is_pinned=True))
    play.wait(1000.0)
    assert play.free_orders == []
