"""Who is in memory, who leaves it, and why."""

from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.memory import eviction
from meshserve.core.memory import residency_events as ev
from tests.core.play import Play, named


def stage(*names, host=100, size=40, **more):
    """A worker on which these models, of one size, are in memory, used in that order."""
    play = Play(host, **more)
    for name in names:
        play.declare(name, size)
    play.bring(*names)
    return play


def want(play, name, host=40, gpu=0, **more):
    """A request for another model, whose file is there."""
    play.declare(name, host, gpu, **more)
    request = play.ask(name)
    play.fetched(name)
    return request


# Making room


def test_the_least_recently_used_leaves():
    play = stage("a", "b")
    play.bring("a")
    want(play, "c")
    assert play.free_orders == ["b"]
    assert not play.orders.loading
    play.freed("b")
    assert list(play.orders.loading) == ["c!"]
    assert play.residency.counts.evictions == 1


def test_the_end_of_its_use_counts():
    play = stage("a", "b")
    in_use = play.ask("a")
    play.bring("b")
    play.now_s += 1.0
    play.release(in_use)
    want(play, "c")
    assert play.free_orders == ["b"]


def test_a_use_between_two_events_counts():
    play = stage("a", "b")
    play.now_s += 1.0
    play.residency.record_use(play.key("a"), play.now_s)
    want(play, "c")
    assert play.free_orders == ["b"]


def test_uses_are_counted_and_lose_their_weight_with_time():
    play = stage("a")
    play.now_s += eviction.HALF_LIFE_S
    for _ in range(2):
        play.ask("a")
    assert play.copy("a").uses == pytest.approx(2.5)


def test_a_copy_that_came_for_nobody_is_as_good_as_used():
    play = stage("a")
    play.declare("b", 40)
    play.now_s += 1.0
    request = play.ask("b")
    play.fetched("b")
    play.leave(request)
    play.loaded("b")
    want(play, "c")
    assert play.free_orders == ["a"]


def test_gdsf_frees_what_is_cheap_to_bring_back():
    play = Play(100, policy=eviction.gdsf)
    for name, load_s in (("slow", 9.0), ("quick", 0.1)):
        play.declare(name, 40)
        request = play.ask(name)
        play.fetched(name)
        play.loaded(name, load_s)
        play.release(request)
    play.bring("quick")
    want(play, "c")
    assert play.free_orders == ["quick"]


def test_gdsf_lets_go_in_time_of_what_was_hot_long_ago():
    play = Play(100, policy=eviction.gdsf)
    play.declare("once hot", 40)
    play.bring(*["once hot"] * 5)
    for number in range(20):
        want(play, f"m{number}", 40)
        for key in list(play.orders.freeing):
            play.answer_free(key)
        play.loaded(f"m{number}")
        play.end_lease(f"m{number}!")
        if play.state("once hot") == "absent":
            return
    pytest.fail("it never left")


def test_a_copy_in_use_is_never_freed():
    play = stage("a", "b")
    leases = [play.ask("a"), play.ask("b")]
    waiting = want(play, "c")
    assert play.free_orders == []
    play.release(leases[1])
    assert play.free_orders == ["b"]
    play.freed("b")
    play.loaded("c")
    assert waiting.key


def test_the_last_of_several_leases_counts():
    play = stage("a", "b")
    leases = [play.ask("a"), play.ask("a"), play.ask("b")]
    want(play, "c")
    play.release(leases[0])
    assert play.free_orders == []
    play.release(leases[1])
    assert play.free_orders == ["a"]


def test_unpinning_what_nobody_has_loaded_is_remembered():
    play = stage("a")
    play.tell(ev.PinSet(named("b"), is_pinned=True))
    play.tell(ev.PinSet(named("b"), is_pinned=False))
    play.declare("b", 40)
    play.bring("b")
    want(play, "c", 90)
    assert play.free_orders == ["a", "b"]


def test_a_pinned_copy_is_never_freed():
    play = stage("a", "b")
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    want(play, "c")
    assert play.free_orders == ["b"]


def test_a_pin_holds_from_before_the_load():
    play = stage()
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    play.declare("a", 40)
    play.declare("b", 40)
    play.bring("a", "b")
    want(play, "c")
    assert play.free_orders == ["b"]


def test_an_unpinned_copy_may_leave_again():
    play = stage("a", "b")
    for name in "ab":
        play.tell(ev.PinSet(named(name), is_pinned=True))
    request = want(play, "c")
    assert isinstance(request.error, errors.ModelTooBig)
    play.tell(ev.PinSet(named("a"), is_pinned=False))
    play.ask("c")
    assert play.free_orders == ["a"]


def test_nobody_is_evicted_where_not_even_all_would_do():
    play = stage("a", "b", size=20)
    play.ask("b")
    want(play, "c", 90)
    assert play.free_orders == []


def test_a_model_bigger_than_the_budget_is_refused_at_once():
    play = stage("a", "b")
    request = want(play, "big", 101)
    assert isinstance(request.error, errors.ModelTooBig)
    assert "could free at most" in request.error.message
    assert not play.orders.loading
    assert play.free_orders == []


def test_a_model_too_big_for_the_gpu_hears_of_the_gpu():
    play = Play(100, gpu=50)
    assert "of GPU memory" in want(play, "big", 10, 60).error.message


# Measured footprints


def test_a_copy_smaller_than_thought_leaves_room():
    play = stage()
    want(play, "a", 10, hint=(90, 0))
    play.declare("b", 50)
    play.ask("b")
    play.fetched("b")
    assert list(play.orders.loading) == ["a!"]
    play.loaded("a")
    assert list(play.orders.loading) == ["b!"]


def test_a_copy_bigger_than_thought_evicts_idle_ones():
    play = stage("a", "b")
    request = want(play, "c", 50, hint=(20, 0))
    play.loaded("c")
    assert request.key
    assert play.free_orders == ["a"]


def test_a_copy_bigger_than_the_room_that_can_be_made_goes_and_comes_back_when_there_is_more():
    play = stage("a", "b")
    leases = [play.ask("a"), play.ask("b")]
    request = want(play, "c", 50, hint=(20, 0))
    play.loaded("c")
    assert play.free_orders == ["c"]
    play.freed("c")
    assert request.is_waiting
    play.release(*leases)
    play.freed("a")
    play.loaded("c")
    assert request.key


def test_a_copy_that_turns_out_bigger_than_the_budget_is_refused_and_nobody_was_evicted():
    play = stage("a")
    request = want(play, "c", 120, hint=(20, 0))
    play.loaded("c")
    assert isinstance(request.error, errors.ModelTooBig)
    assert play.free_orders == ["c"]


def test_the_next_load_reserves_what_the_last_one_took():
    play = stage()
    play.declare("a", 60, hint=(10, 0))
    play.bring("a")
    play.tell(ev.UnloadRequested(named("a")))
    play.freed("a")
    play.ask("a")
    assert play.copy("a").booked.host_bytes == 60


def test_what_another_name_says_of_bytes_that_were_measured_is_not_believed():
    play = stage()
    play.declare("a", 60, hint=(10, 0), key="same")
    play.bring("a")
    play.declare("b", 60, hint=(5, 0), key="same")
    play.ask("b")
    play.fetched("b")
    assert play.copy("b").need.host_bytes == 60


# What the process takes beside its copies


def test_memory_that_no_copy_accounts_for_is_taken_off_the_budget():
    play = stage("a", "b")
    play.see(30)
    assert play.free_orders == ["a"]
    play.freed("a")
    want(play, "c", 40)
    assert play.free_orders == ["b"]


def test_as_much_goes_as_can_if_not_enough_can():
    play = stage("a", "b")
    play.ask("b")
    play.see(90)
    assert play.free_orders == ["a"]


def test_what_waited_for_memory_starts_when_the_process_gives_it_back():
    play = stage()
    play.see(20)
    play.see(70)
    want(play, "a", 50)
    assert not play.orders.loading
    play.see(50)
    assert list(play.orders.loading) == ["a!"]


def test_a_model_that_could_fit_if_the_process_were_smaller_is_refused_after_a_while():
    play = stage(patience_s=2.0)
    play.see(0)
    play.see(70)
    request = want(play, "a", 50)
    play.wait(1.0)
    assert request.is_waiting
    play.wait(2.0)
    assert isinstance(request.error, errors.ModelTooBig)


def test_copies_in_use_stay_though_the_process_takes_the_whole_budget():
    play = stage("a", "b")
    leases = [play.ask("a"), play.ask("b")]
    play.see(100)
    assert play.free_orders == []
    play.release(*leases)
    play.see(100)
    assert play.free_orders == ["a", "b"]


# Unloading


def test_a_model_is_unloaded_when_asked_to():
    play = stage("a")
    play.tell(ev.UnloadRequested(named("a")))
    assert play.free_orders == ["a"]
    assert play.residency.counts.evictions == 0


def test_a_model_in_use_is_unloaded_when_its_users_are_done_and_nobody_new_gets_it():
    play = stage("a")
    user = play.ask("a")
    play.tell(ev.UnloadRequested(named("a")))
    late = play.ask("a")
    assert late.is_waiting
    play.release(user)
    play.freed("a")
    play.loaded("a")
    assert late.key


def test_a_model_unloaded_while_it_loads_serves_who_waited_and_goes():
    play = stage()
    request = want(play, "a")
    play.tell(ev.UnloadRequested(named("a")))
    play.loaded("a")
    assert request.key
    play.release(request)
    assert play.free_orders == ["a"]


def test_a_model_that_is_pinned_is_unloaded_no_more():
    play = stage()
    request = want(play, "a")
    play.tell(ev.UnloadRequested(named("a")))
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    play.loaded("a")
    play.release(request)
    assert play.state("a") == "ready"


def test_a_pinned_model_is_not_unloaded():
    play = stage("a")
    play.tell(ev.PinSet(named("a"), is_pinned=True))
    play.tell(ev.UnloadRequested(named("a")))
    play.tell(ev.PinSet(named("a"), is_pinned=False))
    assert play.state("a") == "ready"


def test_unloading_what_is_not_there_changes_nothing():
    play = stage("a")
    play.tell(ev.UnloadRequested(named("nobody")))
    play.tell(ev.UnloadRequested(named("a")))
    play.tell(ev.UnloadRequested(named("a")))
    play.freed("a")
    play.tell(ev.UnloadRequested(named("a")))
    play.bring("a")
    assert play.state("a") == "ready"


def test_idle_models_are_unloaded_after_their_time():
    play = stage("a", "b", idle_unload_s=60.0)
    play.wait(30.0)
    play.bring("b")
    play.wait(40.0)
    assert play.free_orders == ["a"]
    play.wait(60.0)
    assert play.free_orders == ["a", "b"]


def test_the_time_of_an_idle_model_begins_when_it_is_there():
    play = stage("a", idle_unload_s=60.0)
    play.tell(ev.UnloadRequested(named("a")))
    play.freed("a")
    request = play.ask("a")
    play.now_s += 100.0
    play.leave(request)
    play.loaded("a")
    play.wait(1.0)
    assert play.state("a") == "ready"


def test_idle_models_stay_if_nobody_says_for_how_long():
    play = stage("a")
    play.wait(1e9)
    assert play.state("a") == "ready"


def test_used_and_pinned_models_are_not_idle():
    play = stage("a", "b", idle_unload_s=60.0)
    play.ask("a")
    play.tell(ev.PinSet(named("b"), is_pinned=True))
    play.wait(1000.0)
    assert play.free_orders == []
