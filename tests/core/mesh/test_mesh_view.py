from __future__ import annotations

import dataclasses
import sys

import pytest

from meshserve import errors
from meshserve.core.values import desired, events, model, reports
from tests.core import world

A = model.ModelId("a")


@pytest.fixture
def made():
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2), world.pool("gpu", 1)))
    fresh.feed(events.ModelsRegistered((world.spec("a"),)))
    fresh.perform_all()
    return fresh


def test_a_view_is_built_once_for_each_event(made):
    view = made.mesh.view()
    assert made.mesh.view() is view
    made.feed(events.Ticked())
    assert made.mesh.view() is not view


def test_a_view_costs_the_same_however_many_models_there_are(made):
    def calls():
        counted = 0

        def count(_, event, __):
            nonlocal counted
            counted += event == "call"

        made.feed(events.Ticked())
        sys.setprofile(count)
        try:
            made.mesh.view()
        finally:
            sys.setprofile(None)
        return counted

    before = calls()
    made.feed(events.ModelsRegistered(tuple(world.spec(f"m{number}") for number in range(2000))))
    made.perform_all()
    assert calls() == before


def test_what_is_small_stays_as_it_was(made):
    view = made.mesh.view()
    made.kill("default-0")
    assert [worker.is_ready for worker in view.of_pool("default")] == [True, True]
    assert [worker.is_ready for worker in made.mesh.view().of_pool("default")] == [False, True]


def test_a_view_can_t_change_the_mesh(made):
    view = made.mesh.view()
    with pytest.raises(TypeError):
        view.workers[0].copies[A] = reports.CopyReport(A, "ready")
    with pytest.raises(TypeError):
        view.aliases["al"] = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.is_draining = True


def test_models_are_found_by_name_version_and_alias(made):
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    view = made.mesh.view()
    assert {view.declared(*key).spec.id for key in (("a",), ("a", "1"), ("al",))} == {A}
    assert (view.aliases_of("a"), view.home("al")) == ({"al"}, made.mesh.home("al"))
    with pytest.raises(errors.ModelNotFound):
        view.declared("a", "2")


def test_holders_are_the_homes_and_the_ready_workers_that_reported_a_copy(made):
    home = made.mesh.home("a")
    assert made.mesh.view().holders(A) == [home]
    (other,) = {"default-0", "default-1"} - {home}
    made.feed(events.CopyEnsured(other, A, copy=reports.CopyReport(A, "ready")))
    view = made.mesh.view()
    assert view.holders(A) == ["default-0", "default-1"]
    assert list(view.reported_copies(A)) == [other]
    made.kill(other)
    assert made.mesh.view().holders(A) == [home]


def test_an_alias_moves_until_its_target_has_taken_over_or_failed(made):
    made.feed(events.ModelsRegistered((world.spec("b"),)))
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "b"), is_gradual=True))
    assert made.mesh.view().is_moving("al", "b")
    assert not made.mesh.view().is_moving("al", "a")
    made.failing_loads = {"b"}
    made.perform_all()
    assert not made.mesh.view().is_moving("al", "b")
