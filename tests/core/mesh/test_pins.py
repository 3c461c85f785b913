from __future__ import annotations

import pytest

from meshserve.core.values import commands, desired, events, model, reports
from tests.core import world

A = model.ModelId("a")


@pytest.fixture
def made():
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=3),))
    yield fresh
    fresh.settle()
    fresh.check_settled()


def homes(made):
    return sorted(worker_id for worker_id, process in made.processes.items() if A in process.pins)


def loads(made, since=0):
    return [
        command.worker_id
        for command in made.log[since:]
        if isinstance(command, commands.EnsureLoaded)
    ]


def test_a_pinned_model_is_loaded_and_pinned_at_home(made):
    made.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    made.settle()
    assert homes(made) == [made.mesh.home("a")] == loads(made)


def test_a_pinned_model_is_at_home_under_each_of_its_names(made):
    made.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    for number in range(8):
        made.feed(events.AliasRequested(desired.DesiredAlias(f"al{number}", "a")))
    made.settle()
    assert homes(made) == sorted(
        {made.mesh.home(name) for name in ("a", *(f"al{number}" for number in range(8)))}
    )
    assert len(homes(made)) > 1


def test_a_pinned_model_that_is_no_more_pinned_is_let_go(made):
    made.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    made.settle()
    made.feed(events.PinRequested(A, is_pinned=False))
    made.settle()
    assert homes(made) == []


def test_a_pinned_model_moves_when_its_home_is_lost_and_back_when_it_returns(made):
    made.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    made.settle()
    home = made.mesh.home("a")
    made.kill(home)
    made.feed(events.Ticked())
    other = made.mesh.home("a")
    assert other not in (home, None)
    assert loads(made)[-1] == other
    made.settle()
    assert homes(made) == [home]


def test_a_pinned_model_that_is_declared_anew_is_loaded_again(made):
    made.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    made.settle()
    before = len(made.log)
    made.feed(
        events.ModelsRegistered((world.spec("a", pinned=True, uri="/new"),), is_replacing=True)
    )
    assert loads(made, before) == [made.mesh.home("a")]


def test_a_load_that_failed_is_tried_again_later(made):
    made.failing_loads = {"a"}
    made.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    made.perform_all()
    assert len(loads(made)) == 1
    made.tick(29.0)
    assert len(loads(made)) == 1
    made.tick(2.0)
    assert len(loads(made)) == 2


def test_nothing_is_tried_again_that_nobody_wants_any_more(made):
    made.failing_loads = {"a"}
    made.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    made.perform_all()
    made.feed(events.ModelRemoved("a"))
    before = len(made.log)
    made.tick(31.0)
    assert loads(made, before) == []


def test_the_newest_version_is_what_an_alias_without_version_pins(made):
    made.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    made.feed(events.ModelsRegistered((world.spec("a", "2"),)))
    assert made.mesh.pins.homes(A) == {made.mesh.home("a")}


def test_an_alias_goes_on_moving_when_the_worker_that_loaded_its_target_is_lost():
    made = world.World()
    made.apply(pools=(world.pool(workers=1),))
    made.feed(events.ModelsRegistered((world.spec("a"), world.spec("b"))))
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    made.settle()
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "b"), is_gradual=True))
    made.kill("default-0")
    made.perform_all()
    assert made.saved_aliases["al"].name == "b"


def test_two_aliases_that_wait_for_one_model_both_move(made):
    made.feed(events.ModelsRegistered((world.spec("a"), world.spec("b"))))
    for name in ("one", "two", "three", "four"):
        made.feed(events.AliasRequested(desired.DesiredAlias(name, "a")))
        made.feed(events.AliasRequested(desired.DesiredAlias(name, "b"), is_gradual=True))
    made.settle()
    assert {alias.name for alias in made.saved_aliases.values()} == {"b"}


def test_a_model_that_was_measured_is_still_pinned(made):
    made.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    made.settle()
    home = made.mesh.home("a")
    said = reports.WorkerReport(home, 1, "n1", "ready", 1, measured=(world.measured("a", 5),))
    made.feed(events.WorkerReported(said, 0))
    assert made.mesh.pins.pinned[A] == {home}
