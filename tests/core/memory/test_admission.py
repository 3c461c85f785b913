"""Who comes into memory next."""

from __future__ import annotations

from meshserve import errors
from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, named


def stage(sizes, **more):
    """A worker on which models of these sizes are in memory, used in that order."""
    play = Play(100, **more)
    for name, size in sizes.items():
        play.declare(name, size)
    play.bring(*sizes)
    return play


def want(play, name, host):
    """A request for another model, whose file is there."""
    play.declare(name, host)
    request = play.ask(name)
    play.fetched(name)
    return request


def test_loads_start_in_the_order_of_arrival():
    play = stage({}, loads_parallel=1)
    for name in "abc":
        want(play, name, 10)
    order = []
    while play.orders.loading:
        order += play.orders.loading
        play.answer_load(order[-1])
    assert order == ["a!", "b!", "c!"]


def test_room_is_made_for_as_many_as_may_load_at_once():
    play = stage({"a": 50, "b": 50}, loads_parallel=2)
    want(play, "c", 50)
    want(play, "d", 50)
    assert play.free_orders == ["a", "b"]


def test_nobody_leaves_for_a_load_whose_turn_has_not_come():
    play = stage({"a": 50, "b": 50}, loads_parallel=1)
    want(play, "c", 50)
    want(play, "d", 50)
    assert play.free_orders == ["a"]


def test_nobody_takes_the_room_that_was_made_for_those_ahead():
    play = stage({"a": 50, "b": 50})
    want(play, "c", 60)
    want(play, "d", 50)
    assert play.free_orders == ["a", "b"]
    play.freed("a")
    assert not play.orders.loading
    play.freed("b")
    assert list(play.orders.loading) == ["c!"]


def test_room_that_nobody_ahead_needs_is_taken_at_once():
    play = stage({"a": 80})
    want(play, "b", 60)
    want(play, "c", 20)
    assert play.free_orders == ["a"]
    assert list(play.orders.loading) == ["c!"]


def test_who_waits_for_leases_is_overtaken():
    play = stage({"a": 80})
    play.ask("a")
    want(play, "b", 60)
    want(play, "c", 20)
    assert list(play.orders.loading) == ["c!"]


def test_who_has_lost_its_patience_gets_room_from_copies_in_use():
    play = stage({"a": 80}, patience_s=2.0)
    user = play.ask("a")
    request = want(play, "b", 60)
    play.wait(1.0)
    assert play.state("a") == "ready"
    play.wait(1.5)
    assert play.state("a") == "draining"
    late = play.ask("a")
    play.release(user)
    play.freed("a")
    play.loaded("b")
    assert request.key
    play.release(request)
    play.freed("b")
    play.loaded("a")
    assert late.key


def test_copies_in_use_drain_only_if_that_will_do():
    play = stage({"a": 50, "b": 50})
    play.ask("a")
    play.ask("b")
    play.tell(ev.PinSet(named("b"), is_pinned=True))
    request = want(play, "c", 60)
    play.wait(3.0)
    assert isinstance(request.error, errors.ModelTooBig)
    assert play.state("a") == "ready"


def test_no_copy_in_use_drains_where_not_even_all_would_do():
    play = stage({"a": 30})
    play.ask("a")
    want(play, "hangs", 60)
    want(play, "c", 60)
    play.wait(3.0)
    assert play.state("a") == "ready"
    want(play, "d", 10)
    assert list(play.orders.loading) == ["hangs!", "d!"]


def test_no_more_copies_drain_than_needed():
    play = stage({"a": 50, "b": 50})
    play.ask("a")
    play.ask("b")
    want(play, "c", 40)
    for _ in range(3):
        play.wait(3.0)
    assert sorted([play.state("a"), play.state("b")]) == ["draining", "ready"]


def test_idle_copies_leave_with_those_that_drain():
    play = stage({"a": 50, "b": 50})
    play.ask("a")
    want(play, "c", 90)
    play.wait(3.0)
    assert play.state("a") == "draining"
    assert play.free_orders == ["b"]


def test_who_waits_for_drained_copies_keeps_its_share_from_those_behind():
    play = stage({"a": 50, "b": 40})
    user = play.ask("a")
    first = want(play, "c", 60)
    play.wait(3.0)
    assert play.free_orders == []
    second = want(play, "d", 50)
    third = want(play, "e", 40)
    play.release(user)
    assert play.free_orders == ["a", "b"]
    play.freed("a")
    play.loaded("c")
    assert first.key
    assert second.is_waiting
    assert third.is_waiting
    assert list(play.orders.loading) == []
    play.freed("b")
    assert list(play.orders.loading) == ["e!"]


def test_who_leaves_the_queue_lets_those_behind_go_on():
    play = stage({"a": 100})
    play.ask("a")
    request = want(play, "b", 60)
    want(play, "c", 10)
    play.wait(3.0)
    play.leave(request)
    assert play.state("b") == "absent"
    assert play.state("c") == "queued"
    play.end_lease("a!")
    play.freed("a")
    assert list(play.orders.loading) == ["c!"]


def test_a_pin_that_leaves_no_room_turns_away_who_waits_for_it():
    play = stage({"a": 80})
    play.ask("a")
    request = want(play, "b", 60)
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    assert isinstance(request.error, errors.ModelTooBig)
    assert play.state("b") == "absent"


def test_of_two_pinned_models_that_can_not_both_stay_the_first_does():
    play = stage({})
    for name in "ab":
        play.tell(ev.PinSet(named(name), is_pinned=True))
    first = want(play, "a", 60)
    second = want(play, "b", 60)
    assert isinstance(second.error, errors.ModelTooBig)
    play.loaded("a")
    assert first.key


def test_what_can_never_fit_is_refused_at_once_though_others_are_loading():
    play = stage({}, loads_parallel=1)
    want(play, "a", 10)
    request = want(play, "b", 101)
    assert isinstance(request.error, errors.ModelTooBig)


def test_a_failed_load_makes_place_for_the_next():
    play = stage({}, loads_parallel=1)
    want(play, "a", 10)
    want(play, "b", 10)
    play.load_failed("a")
    assert list(play.orders.loading) == ["b!"]


def test_a_copy_that_is_expelled_makes_place_for_the_next():
    play = stage({"a": 60}, loads_parallel=1)
    play.ask("a")
    play.declare("b", 60, hint=(10, 0))
    play.ask("b")
    play.fetched("b")
    want(play, "c", 10)
    play.loaded("b")
    assert play.free_orders == ["b"]
    play.freed("b")
    assert list(play.orders.loading) == ["c!"]
