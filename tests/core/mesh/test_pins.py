from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshserve.core.values import commands, desired, events, model, reports
from tests.core import world

A = model.ModelId("a")


@pytest.fixture
def mesh_world() -> Iterator[world.World]:
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=3),))
    yield fresh
    fresh.settle()
    fresh.check_settled()


def homes(mesh_world: world.World) -> list[str]:
    return sorted(
        worker_id for worker_id, process in mesh_world.processes.items() if A in process.pins
    )


def loads(mesh_world: world.World, since: int = 0) -> list[str]:
    return [
        command.worker_id
        for command in mesh_world.log[since:]
        if isinstance(command, commands.EnsureLoaded)
    ]


def test_a_pinned_model_is_loaded_and_pinned_at_home(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    mesh_world.settle()
    assert homes(mesh_world) == [mesh_world.home("a")] == loads(mesh_world)


def test_a_pinned_model_is_at_home_under_each_of_its_names(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    for number in range(8):
        mesh_world.feed(events.AliasRequested(desired.DesiredAlias(f"al{number}", "a")))
    mesh_world.settle()
    assert homes(mesh_world) == sorted(
        {mesh_world.home(name) for name in ("a", *(f"al{number}" for number in range(8)))}
    )
    assert len(homes(mesh_world)) > 1


def test_an_unpinned_model_is_released(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    mesh_world.settle()
    mesh_world.feed(events.PinRequested(A, is_pinned=False))
    mesh_world.settle()
    assert homes(mesh_world) == []


def test_a_pinned_model_moves_when_its_home_is_lost_and_back_when_it_returns(
    mesh_world: world.World,
) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    mesh_world.settle()
    home = mesh_world.home("a")
    mesh_world.kill(home)
    mesh_world.feed(events.Ticked())
    other = mesh_world.home("a")
    assert other not in (home, None)
    assert loads(mesh_world)[-1] == other
    mesh_world.settle()
    assert homes(mesh_world) == [home]


def test_the_end_of_an_earlier_process_changes_no_pin(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    mesh_world.settle()
    home = mesh_world.home("a")
    mesh_world.feed(events.WorkerLost(home, "killed", pid=99))
    mesh_world.feed(events.WorkerStopped(home))
    assert mesh_world.mesh.pins.pinned[A] == {home}
    mesh_world.check()


def test_a_pinned_model_that_is_declared_anew_is_loaded_again(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    mesh_world.settle()
    before = len(mesh_world.log)
    mesh_world.feed(
        events.ModelsRegistered((world.spec("a", pinned=True, uri="/new"),), is_replacing=True)
    )
    assert loads(mesh_world, before) == [mesh_world.home("a")]


def test_a_failed_load_is_retried_later(mesh_world: world.World) -> None:
    mesh_world.failing_loads = {"a"}
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    mesh_world.perform_all()
    assert len(loads(mesh_world)) == 1
    mesh_world.tick(29.0)
    assert len(loads(mesh_world)) == 1
    mesh_world.tick(2.0)
    assert len(loads(mesh_world)) == 2


def test_a_load_that_is_not_wanted_any_more_is_not_retried(mesh_world: world.World) -> None:
    mesh_world.failing_loads = {"a"}
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    mesh_world.perform_all()
    mesh_world.feed(events.ModelRemoved("a"))
    before = len(mesh_world.log)
    mesh_world.tick(31.0)
    assert loads(mesh_world, before) == []


def test_the_newest_version_is_what_an_alias_without_version_pins(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    mesh_world.feed(events.ModelsRegistered((world.spec("a", "2"),)))
    assert mesh_world.mesh.pins.homes(A) == {mesh_world.home("a")}


def test_an_alias_goes_on_moving_when_the_worker_that_loaded_its_target_is_lost() -> None:
    mesh_world = world.World()
    mesh_world.apply(pools=(world.pool(workers=1),))
    mesh_world.feed(events.ModelsRegistered((world.spec("a"), world.spec("b"))))
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    mesh_world.settle()
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "b"), is_gradual=True))
    mesh_world.kill("default-0")
    mesh_world.perform_all()
    assert mesh_world.saved_aliases["al"].name == "b"


def test_two_aliases_that_wait_for_one_model_both_move(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a"), world.spec("b"))))
    for name in ("one", "two", "three", "four"):
        mesh_world.feed(events.AliasRequested(desired.DesiredAlias(name, "a")))
        mesh_world.feed(events.AliasRequested(desired.DesiredAlias(name, "b"), is_gradual=True))
    mesh_world.settle()
    assert {alias.name for alias in mesh_world.saved_aliases.values()} == {"b"}


def test_a_model_that_was_measured_is_still_pinned(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a", pinned=True),)))
    mesh_world.settle()
    home = mesh_world.home("a")
    said = reports.WorkerReport(home, 1, "n1", "ready", 1, measured=(world.measured("a", 5),))
    mesh_world.feed(events.WorkerReported(said, 0))
    assert mesh_world.mesh.pins.pinned[A] == {home}
