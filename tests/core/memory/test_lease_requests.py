"""Requests for leases: granted, refused, or waiting for a fetch or a load."""

from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, id_of

GONE = errors.LoadFailed("the bucket is gone")


def test_a_model_that_is_not_ready_is_not_leased_at_once() -> None:
    play = Play()
    play.declare("a")
    assert play.residency.lease(id_of("a"), play.now_s) is None
    play.request("a")
    assert play.residency.lease(id_of("a"), play.now_s) is None
    play.finish_fetch("a")
    assert play.residency.lease(id_of("a"), play.now_s) is None
    assert play.residency.counts.hits == 0


def test_one_load_serves_all_waiting_requests() -> None:
    play = Play()
    play.declare("a")
    requests = [play.request("a") for _ in range(100)]
    assert len(play.orders.fetching) == 1
    play.finish_fetch("a")
    requests += [play.request("a") for _ in range(100)]
    assert list(play.orders.loading) == [play.key("a")]
    play.finish_load("a")
    assert play.copy("a").leases == 200
    assert all(request.key for request in requests)


def test_a_request_that_left_is_not_answered() -> None:
    play = Play()
    play.declare("a")
    request = play.request("a")
    play.leave(request)
    play.finish_fetch("a")
    assert not play.orders.loading
    assert request.key is None


def test_leaving_after_the_answer_changes_nothing() -> None:
    play = Play()
    play.declare("a")
    request = play.request("a")
    play.finish_fetch("a")
    play.finish_load("a")
    play.leave(request)
    assert play.copy("a").leases == 1


def test_the_number_of_waiting_requests_is_bounded() -> None:
    play = Play(waiters_max=2)
    play.declare("a")
    waiting = [play.request("a"), play.request("a")]
    refused = play.request("a")
    assert isinstance(refused.error, errors.Overloaded)
    assert refused.refusal.retry_after_s
    play.finish_fetch("a")
    play.finish_load("a")
    assert all(request.key for request in waiting)


def test_waiting_twice_with_one_ticket_is_a_bug() -> None:
    play = Play()
    play.declare("a")
    play.request("a")
    with pytest.raises(AssertionError, match="waits already"):
        play.send(ev.LeaseRequested(1, id_of("a")))


@pytest.mark.parametrize("is_fetched", [False, True])
def test_requests_for_a_withdrawn_model_are_refused(is_fetched: bool) -> None:
    play = Play()
    play.declare("a")
    request = play.request("a")
    if is_fetched:
        play.finish_fetch("a")
    play.send(ev.ModelForgotten(id_of("a")))
    assert isinstance(request.error, errors.ModelNotFound)


@pytest.mark.parametrize("is_fetched", [False, True])
def test_requests_for_a_replaced_model_get_the_new_one(is_fetched: bool) -> None:
    play = Play()
    play.declare("a", key="old")
    request = play.request("a")
    if is_fetched:
        play.finish_fetch("a")
    play.declare("a", key="new")
    play.send(ev.ModelForgotten(id_of("a"), is_replaced=True))
    play.finish_attempt(max(play.orders.fetching))
    assert request.key is None
    play.finish_load("a")
    assert request.key == "new"


def test_a_late_fetch_of_the_old_artifact_is_ignored() -> None:
    play = Play()
    play.declare("a", key="old")
    play.request("a")
    play.send(ev.ModelForgotten(id_of("a")))
    play.declare("a", key="new")
    play.request("a")
    play.finish_attempt(min(play.orders.fetching))
    assert not play.orders.loading
    play.fail_fetch("a", GONE)
    assert not play.residency.copies


def test_a_late_failure_to_fetch_the_old_artifact_is_ignored() -> None:
    play = Play()
    play.declare("a", key="old")
    play.request("a")
    play.send(ev.ModelForgotten(id_of("a")))
    play.declare("a", key="new")
    request = play.request("a")
    play.fail_fetch("a", GONE)
    play.finish_fetch("a")
    play.finish_load("a")
    assert request.key == "new"


def test_a_replaced_model_is_fetched_with_its_next_request() -> None:
    play = Play()
    play.declare("a")
    play.load("a")
    play.send(ev.ModelForgotten(id_of("a"), is_replaced=True))
    assert not play.orders.fetching
    play.request("a")
    assert len(play.orders.fetching) == 1


def test_a_request_during_the_eviction_brings_the_copy_back() -> None:
    play = Play()
    play.declare("a")
    play.load("a")
    play.send(ev.UnloadRequested(id_of("a")))
    request = play.request("a")
    play.finish_free("a")
    play.finish_load("a")
    assert request.key
