"""Loads and fetches that fail, hang, or end too late."""

from __future__ import annotations

from meshserve import errors
from meshserve.core.backoff import BackoffPolicy
from meshserve.core.memory import residency_events as ev
from tests.core.play import BROKEN, Play, id_of

GONE = errors.LoadFailed("the bucket is gone")


def test_a_failed_load_is_refused_with_its_reason_until_its_back_off_ends() -> None:
    play = Play(backoff=BackoffPolicy(base_s=4.0, cap_s=60.0))
    play.declare("a")
    first = play.request("a")
    play.finish_fetch("a")
    play.fail_load("a")
    second = play.request("a")
    assert first.refusal.message == second.refusal.message == BROKEN.message
    assert second.refusal.retry_after_s == 4.0
    play.wait(4.0)
    third = play.request("a")
    play.finish_load("a")
    assert third.key


def test_a_back_off_doubles_up_to_its_bound_and_starts_anew_after_a_success() -> None:
    play = Play(backoff=BackoffPolicy(base_s=1.0, cap_s=5.0))
    play.declare("a")
    assert [fail(play, "a") for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    play.load("a")
    play.send(ev.UnloadRequested(id_of("a")))
    play.finish_free("a")
    assert fail(play, "a") == 1.0


def fail(play: Play, name: str) -> float:
    """A load fails as soon as it may; for how long none is tried then."""
    request = play.request(name)
    if play.orders.fetching:
        play.finish_fetch(name)
    play.fail_load(name)
    wait_s = request.refusal.retry_after_s
    assert wait_s is not None
    play.now_s += wait_s
    return wait_s


def test_a_failed_fetch_is_refused_with_its_reason_until_its_back_off_ends() -> None:
    play = Play(backoff=BackoffPolicy(base_s=4.0, cap_s=60.0))
    play.declare("a")
    first = play.request("a")
    play.fail_fetch("a", GONE)
    second = play.request("a")
    assert first.refusal.message == second.refusal.message == GONE.message
    assert play.residency.counts.load_failures == 1
    play.wait(5.0)
    play.load("a")
    assert play.state("a") == "ready"


def test_a_failed_load_leaves_other_copies_alone() -> None:
    play = Play(host=100)
    play.declare("a", 40)
    play.declare("b", 40)
    play.load("a")
    play.request("b")
    play.finish_fetch("b")
    play.fail_load("b")
    assert play.state("a") == "ready"
    assert play.residency.account.booked == (40, 0)


def test_a_load_that_hangs_is_refused_and_not_started_twice() -> None:
    play = Play(loads_parallel=1)
    play.declare("a", load_timeout_s=5.0)
    play.declare("b")
    waiting = play.request("a")
    play.finish_fetch("a")
    play.wait(6.0)
    late = play.request("a")
    assert "within 5 s" in waiting.refusal.message
    assert "within 5 s" in late.refusal.message
    play.request("b")
    play.finish_fetch("b")
    assert list(play.orders.loading) == ["a!", "b!"]
    play.wait(100.0)
    assert play.request("a").refusal.retry_after_s is None


def test_the_bytes_of_a_load_that_hangs_stay_booked() -> None:
    play = Play(host=100)
    play.declare("a", 60)
    play.declare("b", 60)
    play.request("a")
    play.finish_fetch("a")
    play.wait(11.0)
    play.request("b")
    play.finish_fetch("b")
    assert list(play.orders.loading) == ["a!"]
    play.fail_load("a")
    assert list(play.orders.loading) == ["b!"]


def test_a_load_that_ends_well_after_its_time_is_used() -> None:
    play = Play()
    play.declare("a")
    play.request("a")
    play.finish_fetch("a")
    play.wait(11.0)
    play.finish_load("a")
    assert play.request("a").key


def test_a_load_that_fails_after_its_time_failed_once_and_says_why() -> None:
    play = Play(backoff=BackoffPolicy(base_s=4.0, cap_s=60.0))
    play.declare("a")
    play.request("a")
    play.finish_fetch("a")
    play.wait(11.0)
    play.fail_load("a")
    assert play.residency.counts.load_failures == 1
    assert play.request("a").refusal.message == BROKEN.message
    play.wait(4.0)
    play.request("a")
    assert list(play.orders.loading) == ["a!"]
