"""What a worker promises about its models, one play for each promise."""

from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, named

GONE = errors.LoadFailed("the bucket is gone")


# A request


def test_a_model_is_fetched_loaded_and_lent():
    play = Play()
    play.declare("a")
    request = play.ask("a")
    play.fetched("a")
    play.loaded("a")
    assert request.key == play.key("a")
    assert play.copy("a").leases == 1


def test_a_ready_model_is_lent_at_once():
    play = Play()
    play.declare("a")
    play.bring("a")
    assert play.ask("a").key
    assert play.residency.lease(named("a"), play.now_s) == play.key("a")
    assert play.copy("a").leases == 2
    counts = play.residency.counts
    assert (counts.hits, counts.misses, counts.loads) == (2, 1, 1)


def test_a_use_that_is_over_counts_as_a_lease_does():
    play = Play()
    play.declare("a")
    assert play.residency.find_ready(named("a")) is None
    play.bring("a")
    key = play.residency.find_ready(named("a"))
    assert key == play.key("a")
    play.now_s += 5.0
    play.residency.record_use(key, play.now_s)
    play.residency.check()
    copy = play.copy("a")
    assert (copy.leases, copy.last_used_s, play.residency.counts.hits) == (0, play.now_s, 1)
    assert copy.uses == pytest.approx(2.0, abs=0.01)


def test_a_model_that_is_not_ready_is_not_leased_at_once():
    play = Play()
    play.declare("a")
    assert play.residency.lease(named("a"), play.now_s) is None
    play.ask("a")
    assert play.residency.lease(named("a"), play.now_s) is None
    play.fetched("a")
    assert play.residency.lease(named("a"), play.now_s) is None
    assert play.residency.counts.hits == 0


def test_one_load_serves_however_many_wait():
    play = Play()
    play.declare("a")
    requests = [play.ask("a") for _ in range(100)]
    assert len(play.orders.fetching) == 1
    play.fetched("a")
    requests += [play.ask("a") for _ in range(100)]
    assert list(play.orders.loading) == [play.key("a")]
    play.loaded("a")
    assert play.copy("a").leases == 200
    assert all(request.key for request in requests)


def test_the_same_bytes_under_two_names_are_one_copy():
    play = Play()
    play.declare("a", key="same")
    play.declare("b", key="same")
    first, second = play.ask("a"), play.ask("b")
    play.fetched("a")
    play.fetched("b")
    assert list(play.orders.loading) == ["same"]
    play.loaded("a")
    assert first.key == second.key == "same"


def test_a_shared_copy_stays_until_its_last_name_goes():
    play = Play()
    play.declare("a", key="same")
    play.declare("b", key="same")
    play.bring("a", "b")
    play.tell(ev.ModelForgotten(named("a")))
    assert play.state("b") == "ready"
    play.tell(ev.ModelForgotten(named("b")))
    assert list(play.orders.freeing) == ["same"]


def test_different_models_load_side_by_side_as_far_as_allowed():
    play = Play(loads_parallel=2)
    for name in "abc":
        play.declare(name)
        play.ask(name)
        play.fetched(name)
    assert list(play.orders.loading) == ["a!", "b!"]
    play.load_failed("a")
    assert list(play.orders.loading) == ["b!", "c!"]


def test_a_caller_who_left_is_not_answered():
    play = Play()
    play.declare("a")
    request = play.ask("a")
    play.leave(request)
    play.fetched("a")
    assert not play.orders.loading
    assert request.key is None


def test_a_load_that_nobody_waits_for_any_more_is_kept():
    play = Play()
    play.declare("a")
    request = play.ask("a")
    play.fetched("a")
    play.leave(request)
    play.loaded("a")
    assert play.state("a") == "ready"


def test_leaving_after_the_answer_changes_nothing():
    play = Play()
    play.declare("a")
    request = play.ask("a")
    play.fetched("a")
    play.loaded("a")
    play.leave(request)
    assert play.copy("a").leases == 1


def test_only_so_many_may_wait():
    play = Play(waiters_max=2)
    play.declare("a")
    waiting = [play.ask("a"), play.ask("a")]
    refused = play.ask("a")
    assert isinstance(refused.error, errors.Overloaded)
    assert refused.error.retry_after_s
    play.fetched("a")
    play.loaded("a")
    assert all(request.key for request in waiting)


def test_a_lease_that_nobody_has_can_not_end():
    play = Play()
    play.declare("a")
    play.bring("a")
    with pytest.raises(AssertionError, match="nobody had"):
        play.tell(ev.LeaseReleased("a!"))


def test_a_ticket_waits_once():
    play = Play()
    play.declare("a")
    play.ask("a")
    with pytest.raises(AssertionError, match="waits already"):
        play.tell(ev.LeaseRequested(1, named("a")))


# Models come and go


def test_a_withdrawn_model_leaves_memory_once_nobody_uses_it():
    play = Play()
    play.declare("a")
    play.bring("a")
    request = play.ask("a")
    play.tell(ev.ModelForgotten(named("a")))
    assert play.free_orders == []
    play.release(request)
    assert play.free_orders == ["a"]
    play.freed("a")
    assert not play.residency.copies
    assert not play.residency.bindings


def test_a_withdrawn_model_is_pinned_no_longer():
    play = Play()
    play.declare("a")
    play.bring("a")
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    play.tell(ev.ModelForgotten(named("a")))
    assert play.free_orders == ["a"]
    play.freed("a")
    play.bring("a")
    assert not play.copy("a").pins


def test_a_replaced_model_is_pinned_still():
    play = Play()
    play.declare("a", key="old")
    play.bring("a")
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    play.tell(ev.ModelForgotten(named("a"), is_replaced=True))
    play.declare("a", key="new")
    play.bring("a")
    assert play.copy("a").pins


@pytest.mark.parametrize("is_fetched", [False, True])
def test_requests_for_a_withdrawn_model_hear_it(is_fetched):
    play = Play()
    play.declare("a")
    request = play.ask("a")
    if is_fetched:
        play.fetched("a")
    play.tell(ev.ModelForgotten(named("a")))
    assert isinstance(request.error, errors.ModelNotFound)


@pytest.mark.parametrize("is_fetched", [False, True])
def test_requests_for_a_replaced_model_get_the_new_one(is_fetched):
    play = Play()
    play.declare("a", key="old")
    request = play.ask("a")
    if is_fetched:
        play.fetched("a")
    play.declare("a", key="new")
    play.tell(ev.ModelForgotten(named("a"), is_replaced=True))
    play.answer_fetch(max(play.orders.fetching))
    assert request.key is None
    play.loaded("a")
    assert request.key == "new"


def test_a_late_fetch_of_the_old_artifact_is_not_taken_for_the_new():
    play = Play()
    play.declare("a", key="old")
    play.ask("a")
    play.tell(ev.ModelForgotten(named("a")))
    play.declare("a", key="new")
    play.ask("a")
    play.answer_fetch(min(play.orders.fetching))
    assert not play.orders.loading
    play.fetch_failed("a", GONE)
    assert not play.residency.copies


def test_a_late_failure_to_fetch_the_old_artifact_harms_nobody():
    play = Play()
    play.declare("a", key="old")
    play.ask("a")
    play.tell(ev.ModelForgotten(named("a")))
    play.declare("a", key="new")
    request = play.ask("a")
    play.fetch_failed("a", GONE)
    play.fetched("a")
    play.loaded("a")
    assert request.key == "new"


def test_a_model_withdrawn_while_it_loads_leaves_at_once():
    play = Play()
    play.declare("a")
    play.ask("a")
    play.fetched("a")
    play.tell(ev.ModelForgotten(named("a")))
    assert play.state("a") == "loading"
    play.loaded("a")
    assert play.free_orders == ["a"]


def test_a_withdrawn_model_whose_load_fails_leaves_nothing():
    play = Play()
    play.declare("a")
    play.ask("a")
    play.fetched("a")
    play.tell(ev.ModelForgotten(named("a")))
    play.load_failed("a")
    assert not play.residency.copies


def test_forgetting_what_nobody_knows_changes_nothing():
    play = Play()
    assert play.tell(ev.ModelForgotten(named("a"))) == []


def test_a_replaced_model_that_nobody_waits_for_is_fetched_when_it_is_asked_for():
    play = Play()
    play.declare("a")
    play.bring("a")
    play.tell(ev.ModelForgotten(named("a"), is_replaced=True))
    assert not play.orders.fetching
    play.ask("a")
    assert len(play.orders.fetching) == 1


def test_a_request_for_a_copy_on_its_way_out_brings_it_back():
    play = Play()
    play.declare("a")
    play.bring("a")
    play.tell(ev.UnloadRequested(named("a")))
    request = play.ask("a")
    play.freed("a")
    play.loaded("a")
    assert request.key


# What eases a load


def test_a_load_that_is_eased_asks_for_no_room_beside_the_copy():
    play = Play(100)
    play.declare("a", 40)
    play.declare("b", 40)
    play.bring("b")
    request = play.ask("a")
    play.answer_fetch(*play.orders.fetching, load_extra_bytes=40)
    assert play.free_orders == ["b"]
    play.tell(ev.LoadOverheadKnown(play.key("a"), 0))
    assert play.orders.loading == {play.key("a"): None}
    play.loaded("a")
    assert request.key == play.key("a")


def test_what_is_booked_for_a_load_under_way_stays():
    play = Play(100)
    play.declare("a", 40)
    play.ask("a")
    play.answer_fetch(*play.orders.fetching, load_extra_bytes=20)
    play.tell(ev.LoadOverheadKnown(play.key("a"), 0))
    assert play.copy("a").booked.host_bytes == 60
    assert play.copy("a").load_extra_bytes == 20
    play.tell(ev.LoadOverheadKnown("nobody", 5))


def test_memory_is_short_where_not_even_all_that_may_leave_would_do():
    play = Play(100)
    play.declare("a", 60)
    play.bring("a")
    play.see(30)
    assert not play.residency.is_short
    in_use = play.ask("a")
    play.see(70)
    assert play.residency.is_short
    play.release(in_use)
    assert not play.residency.is_short


@pytest.mark.parametrize(
    ("free_bytes", "overhead_bytes"), [(0, 500), (30, 470), (100, 400), (900, 400)]
)
def test_what_the_allocator_holds_free_is_room_up_to_a_part_of_the_budget(
    free_bytes, overhead_bytes
):
    play = Play(1600)
    play.declare("a", 600)
    play.bring("a")
    play.tell(ev.MemoryMeasured(1100, free_bytes))
    assert play.residency.account.overhead_bytes == overhead_bytes
    play.tell(ev.MemoryMeasured(0, 900))
    assert play.residency.account.overhead_bytes == 0


def test_memory_is_short_where_somebody_has_waited_long_for_room():
    play = Play(100)
    for name in ("a", "b"):
        play.declare(name, 60)
    play.bring("a")
    play.ask("a")
    play.ask("b")
    play.fetched("b")
    assert not play.residency.is_short
    play.wait(play.residency.limits.patience_s * 0.6)
    assert play.residency.is_short
