from __future__ import annotations

import dataclasses
import operator
import sys
from typing import Any, cast

import pytest

from meshserve import errors
from meshserve.core.values import desired, events, model, model_figures, reports
from tests.core import world

A = model.ModelId("a")


@pytest.fixture
def mesh_world() -> world.World:
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2), world.pool("gpu", 1)))
    fresh.feed(events.ModelsRegistered((world.spec("a"),)))
    fresh.perform_all()
    return fresh


def test_a_view_is_built_once_for_each_event(mesh_world: world.World) -> None:
    view = mesh_world.mesh.view()
    assert mesh_world.mesh.view() is view
    mesh_world.feed(events.Ticked())
    assert mesh_world.mesh.view() is not view


def test_a_view_costs_the_same_however_many_models_there_are(mesh_world: world.World) -> None:
    def calls() -> Any:
        counted = 0

        def count(frame: Any, event: Any, _: Any) -> None:
            nonlocal counted
            # Ours alone: Hypothesis is called by the garbage collector, whenever that runs.
            counted += event == "call" and "hypothesis" not in frame.f_code.co_filename

        mesh_world.feed(events.Ticked())
        sys.setprofile(count)
        try:
            mesh_world.mesh.view()
        finally:
            sys.setprofile(None)
        return counted

    before = calls()
    mesh_world.feed(
        events.ModelsRegistered(tuple(world.spec(f"m{number}") for number in range(2000)))
    )
    mesh_world.perform_all()
    assert calls() == before


def test_what_is_small_stays_as_it_was(mesh_world: world.World) -> None:
    view = mesh_world.mesh.view()
    mesh_world.kill("default-0")
    assert [worker.is_ready for worker in view.of_pool("default")] == [True, True]
    assert [worker.is_ready for worker in mesh_world.mesh.view().of_pool("default")] == [
        False,
        True,
    ]


def test_a_view_can_t_change_the_mesh(mesh_world: world.World) -> None:
    view = mesh_world.mesh.view()
    with pytest.raises(TypeError):
        operator.setitem(cast("Any", view.workers[0].copies), A, reports.CopyReport(A, "ready"))
    with pytest.raises(TypeError):
        operator.setitem(cast("Any", view.aliases), "al", None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(view, "is_draining", True)  # noqa: B010 - an assignment that mypy would refuse


def test_models_are_found_by_name_version_and_alias(mesh_world: world.World) -> None:
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    view = mesh_world.mesh.view()
    assert {view.declared(*key).spec.id for key in (("a",), ("a", "1"), ("al",))} == {A}
    assert (view.aliases_of("a"), view.home("al")) == (
        frozenset({"al"}),
        mesh_world.home("al"),
    )
    with pytest.raises(errors.ModelNotFound):
        view.declared("a", "2")


def test_holders_are_the_homes_and_the_ready_workers_that_reported_a_copy(
    mesh_world: world.World,
) -> None:
    home = mesh_world.home("a")
    assert mesh_world.mesh.view().holders(A) == [home]
    (other,) = {"default-0", "default-1"} - {home}
    mesh_world.feed(events.CopyEnsured(other, A, copy=reports.CopyReport(A, "ready")))
    view = mesh_world.mesh.view()
    assert view.holders(A) == ["default-0", "default-1"]
    assert list(view.reported_copies(A)) == [other]
    mesh_world.kill(other)
    assert mesh_world.mesh.view().holders(A) == [home]


def test_an_alias_moves_until_its_target_has_taken_over_or_failed(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("b"),)))
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "b"), is_gradual=True))
    assert mesh_world.mesh.view().is_moving("al", "b")
    assert not mesh_world.mesh.view().is_moving("al", "a")
    mesh_world.failing_loads = {"b"}
    mesh_world.perform_all()
    assert not mesh_world.mesh.view().is_moving("al", "b")


def test_requests_are_counted_on_when_a_copy_leaves(mesh_world: world.World) -> None:
    def say(number: int, since: int, *copies: reports.CopyReport) -> int:
        mesh_world.hear_report("default-0", number=number, since=since, copies=copies)
        view = mesh_world.mesh.view()
        return view.requests(A, view.reported_copies(A))

    assert say(1, 0, reports.CopyReport(A, "ready", requests=15)) == 15
    assert say(2, 1, reports.CopyReport(A, "absent", requests=16)) == 16
    view = mesh_world.mesh.view()
    assert (view.reported_copies(A), "default-0" in view.holders(A)) == ({}, True)
    assert say(3, 2, reports.CopyReport(A, "loading", requests=17)) == 17
    assert say(4, 3) == 17
    mesh_world.kill("default-0")
    view = mesh_world.mesh.view()
    assert view.requests(A, view.reported_copies(A)) == 0, "nothing was in its totals"


def test_requests_of_a_worker_that_died_are_counted_on(mesh_world: world.World) -> None:
    figures = model_figures.ModelFigures()
    figures.record_answer(0.001, 1, 1)
    batch = model_figures.FiguresBatch(7, 1, ((A, figures),))
    mesh_world.mesh.totals.take("default-0", batch, mesh_world.now_s)
    mesh_world.kill("default-0")
    view = mesh_world.mesh.view()
    assert view.requests(A, view.reported_copies(A)) == 1
