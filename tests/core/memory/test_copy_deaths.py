"""A copy whose process dies leaves, and the next request brings it back, after a growing wait."""

from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, id_of


def loaded() -> Play:
    play = Play()
    play.declare("a")
    play.load("a")
    return play


def reload(play: Play) -> None:
    request = play.request("a")
    if play.free_orders:
        play.finish_free("a")
    play.finish_load("a")
    play.release(request)


def test_an_idle_copy_is_freed_and_loaded_again_by_the_next_request() -> None:
    play = loaded()
    play.die("a")
    assert play.state("a") == "evicting"
    request = play.request("a")
    assert request.is_waiting
    play.finish_free("a")
    play.finish_load("a")
    assert request.key == play.key("a")
    assert play.copy("a").failure is None


def test_a_leased_copy_is_freed_with_its_last_lease() -> None:
    play = loaded()
    running, other = play.request("a"), play.request("a")
    play.die("a")
    play.release(running)
    assert play.state("a") == "draining"
    play.release(other)
    assert play.free_orders == ["a"]


def test_a_second_death_in_a_row_starts_a_back_off_that_names_the_signal() -> None:
    play = loaded()
    play.die("a")
    reload(play)
    play.die("a")
    for _ in range(2):
        refusal = play.request("a").refusal
        assert isinstance(refusal, errors.LoadDied)
        assert "killed by SIGSEGV" in refusal.message
        assert refusal.retry_after_s == pytest.approx(1.0)
        if play.free_orders:
            play.finish_free("a")
    play.wait(1.0)
    reload(play)
    play.die("a")
    assert play.request("a").refusal.retry_after_s == pytest.approx(2.0)


def test_a_copy_that_ran_for_long_comes_back_at_once() -> None:
    play = loaded()
    play.die("a")
    reload(play)
    play.wait(61.0)
    play.die("a")
    assert play.request("a").is_waiting


def test_those_who_wait_for_a_draining_copy_are_refused_if_its_process_dies_again() -> None:
    play = loaded()
    play.die("a")
    reload(play)
    running = play.request("a")
    play.send(ev.UnloadRequested(id_of("a")))
    waiting = play.request("a")
    assert waiting.is_waiting
    play.die("a")
    assert isinstance(waiting.refusal, errors.LoadDied)
    play.release(running)
    assert play.state("a") == "evicting"


def test_a_pinned_copy_is_freed_too() -> None:
    play = loaded()
    play.send(ev.PinSet(id_of("a"), is_pinned=True))
    play.die("a")
    play.finish_free("a")
    assert play.state("a") == "absent"


def test_deaths_of_copies_that_are_gone_change_nothing() -> None:
    play = loaded()
    play.die("a")
    play.die("a")
    play.finish_free("a")
    play.die("a")
    assert play.request("a").is_waiting
