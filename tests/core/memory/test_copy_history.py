from __future__ import annotations

from meshserve import errors
from meshserve.core.memory import copy_history, memory_pool
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model
from tests.core.play import Play, id_of


def told(play: Play, after: int = 0) -> list[tuple[str, str, str]]:
    events = play.residency.history.after(after, play.now_s)
    return [(event.kind, event.id.name, event.reason) for event in events]


def test_a_load_says_what_it_took_and_who_waited() -> None:
    play = Play()
    play.declare("a")
    play.request("a")
    play.request("a")
    play.finish_fetch("a")
    play.finish_load("a", load_s=2.5)
    play.now_s += 3.0
    [event] = play.residency.history.after(0, play.now_s)
    assert (event.kind, event.id, event.reason) == ("loaded", id_of("a"), "2 waited for it")
    assert (event.took_s, event.ago_s) == (2.5, 3.0)


def test_an_eviction_says_for_whom() -> None:
    play = Play()
    play.declare("old", 60)
    play.declare("new", 60)
    play.load("old")
    play.request("new")
    play.finish_fetch("new")
    assert ("evicted", "old", "to make room for new:1") in told(play)
    departure = play.copy("old").departure
    assert departure is not None
    assert departure.reason == "to make room for new:1"


def test_an_eviction_for_the_process_itself_says_its_memory() -> None:
    play = Play()
    play.declare("a", 60)
    play.load("a")
    play.measure_memory(50)
    [(_, _, reason)] = [event for event in told(play) if event[0] == "evicted"]
    assert reason.startswith("the process takes ")
    assert "of a budget of" in reason


def test_a_failed_fetch_and_a_failed_load_say_when_the_next_try_is() -> None:
    play = Play()
    play.declare("a")
    play.request("a")
    play.fail_fetch("a", errors.LoadFailed("the bucket is gone"))
    play.now_s += 60.0
    play.request("a")
    play.finish_fetch("a")
    play.fail_load("a", errors.LoadFailed("no such tensor"))
    assert told(play) == [
        (
            "load failed",
            "a",
            "the bucket is gone (failure 1 in a row; the next try is in 1 s)",
        ),
        ("load failed", "a", "no such tensor (failure 1 in a row; the next try is in 1 s)"),
    ]


def test_what_can_never_fit_is_told() -> None:
    play = Play()
    play.declare("a", 10_000)
    play.request("a")
    play.finish_fetch("a")
    for _ in range(3):
        play.request("a")
    [(kind, _, reason)] = told(play)
    assert kind == "too big"
    assert "the model needs" in reason
    play.now_s += memory_pool.TOO_BIG_PAUSE_S
    play.request("a")
    assert len(told(play)) == 2


def test_a_death_is_told_once_and_is_no_unload() -> None:
    play = Play()
    play.declare("a")
    play.load("a")
    play.die("a")
    assert [kind for kind, _, _ in told(play)] == ["loaded", "died"]


def test_an_unload_by_request_is_told() -> None:
    play = Play()
    play.declare("a")
    play.load("a")
    play.send(ev.UnloadRequested(id_of("a")))
    assert told(play)[-1] == ("unloaded", "a", "by request")


def test_only_later_events_are_told_and_old_ones_are_forgotten() -> None:
    history = copy_history.CopyHistory()
    for number in range(copy_history.EVENTS_MAX + 10):
        history.note("loaded", {id_of("a")}, float(number))
    events = history.after(0, 1000.0)
    assert len(events) == copy_history.EVENTS_MAX
    assert [event.number for event in history.after(events[-3].number, 1000.0)] == [
        events[-2].number,
        events[-1].number,
    ]
    assert events[-1].ago_s == 1000.0 - (copy_history.EVENTS_MAX + 9)


def test_of_thousands_of_models_with_one_copy_few_are_told() -> None:
    history = copy_history.CopyHistory()
    ids = {model.ModelId(f"m{number:04}") for number in range(3000)}
    history.note("loaded", ids, 0.0)
    assert len(history.after(0, 0.0)) == copy_history.NAMES_MAX


def test_a_copy_from_before_a_replacement_has_its_public_name() -> None:
    assert copy_history.first_names([model.ModelId("a", "1/previous")]) == [id_of("a")]
