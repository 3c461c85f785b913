"""Which copies are loaded where before their worker goes."""

from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.mesh import copy_moves
from meshserve.core.processes import hash_ring
from meshserve.core.values import commands, desired, events, model, reports
from tests.core import world

ROOM = model.Footprint(1000)


@pytest.fixture
def mesh_world() -> world.World:
    """Three workers with room, and forty models of which one has an alias."""
    began = world.World()
    specs = tuple(model.ModelSpec(model.ModelId(f"m{n}"), f"/m{n}") for n in range(40))
    aliases = (desired.DesiredAlias("al", "m0", origin=model.FROM_CONFIG),)
    began.apply(pools=(world.pool(workers=3),), models=specs, aliases=aliases)
    for id_ in began.processes:
        began.hear_report(id_, budget=ROOM)
    return began


def moves_of(mesh_world: world.World) -> copy_moves.CopyMoves:
    mesh = mesh_world.mesh
    return copy_moves.CopyMoves(mesh.catalog, mesh.workers, mesh._out)


def plan(mesh_world: world.World, *copies: reports.CopyReport) -> copy_moves.CopyMoves:
    """Plan the moves of default-0, which has these copies, to the two others."""
    mesh_world.hear_report("default-0", budget=ROOM, copies=copies)
    moves = moves_of(mesh_world)
    ring = hash_ring.HashRing(["default-1", "default-2"])
    moves.plan(mesh_world.mesh.workers.records["default-0"], ring)
    return moves


def ordered(mesh_world: world.World, moves: copy_moves.CopyMoves) -> list[commands.EnsureLoaded]:
    moves.advance()
    taken = mesh_world.mesh.take_commands()
    return [command for command in taken if isinstance(command, commands.EnsureLoaded)]


def own(mesh_world: world.World) -> list[str]:
    return [f"m{n}" for n in range(40) if mesh_world.home(f"m{n}") == "default-0"]


def copy(
    name: str, size: int = 1, requests: int = 0, *, pinned: bool = False
) -> reports.CopyReport:
    footprint = model.Footprint(size)
    return reports.CopyReport(
        model.ModelId(name), "ready", "", footprint, requests=requests, pinned=pinned
    )


def test_pinned_and_often_used_copies_come_first(mesh_world: world.World) -> None:
    first, second, third = own(mesh_world)[:3]
    moves = plan(
        mesh_world, copy(first, requests=1), copy(second, requests=9), copy(third, pinned=True)
    )
    assert [c.id.name for c in ordered(mesh_world, moves)] == [third, second, first]


def test_a_copy_at_no_home_of_its_own_is_left(mesh_world: world.World) -> None:
    elsewhere = next(f"m{n}" for n in range(40) if mesh_world.home(f"m{n}") != "default-0")
    assert ordered(mesh_world, plan(mesh_world, copy(elsewhere))) == []


def test_a_copy_at_an_alias_home_goes_to_the_alias_next_home(mesh_world: world.World) -> None:
    ring = hash_ring.HashRing(["default-1", "default-2"])
    names = [name for name in ("m0", "al") if mesh_world.home(name) == "default-0"]
    targets = {c.worker_id for c in ordered(mesh_world, plan(mesh_world, copy("m0")))}
    assert targets == {ring.home(name) for name in names}


def test_copies_in_other_states_are_not_loaded(mesh_world: world.World) -> None:
    name = own(mesh_world)[0]
    assert ordered(mesh_world, plan(mesh_world, copy(name)._replace(state="loading"))) == []


def test_room_is_counted_over_all_copies(mesh_world: world.World) -> None:
    ring = hash_ring.HashRing(["default-1", "default-2"])
    together = [name for name in own(mesh_world) if ring.home(name) == "default-1"][:2]
    moves = plan(mesh_world, *(copy(name, 600) for name in together))
    assert (len(ordered(mesh_world, moves)), moves.without_room) == (1, 1)


def test_loads_are_ordered_a_few_at_a_time_and_counted_as_they_end(
    mesh_world: world.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_moves, "LOADS_AT_ONCE", 2)
    names = own(mesh_world)[:4]
    moves = plan(mesh_world, *map(copy, names))
    begun = ordered(mesh_world, moves)
    assert (len(begun), moves.open) == (2, 4)
    moves.copy_ensured(events.CopyEnsured(begun[0].worker_id, begun[0].id))
    broken = errors.LoadFailed("it is broken")
    moves.copy_ensured(events.CopyEnsured(begun[1].worker_id, begun[1].id, broken))
    # Loads that others have ordered count for nothing.
    moves.copy_ensured(events.CopyEnsured("default-1", model.ModelId("other")))
    assert (moves.done, moves.failed, moves.open) == (1, 1, 2)
    for worker_id in {load.worker_id for load in ordered(mesh_world, moves)}:
        moves.forget_worker(worker_id)
    assert (moves.done, moves.failed, moves.open) == (1, 3, 0)


def test_a_target_that_has_gone_is_not_asked(mesh_world: world.World) -> None:
    moves = plan(mesh_world, *map(copy, own(mesh_world)))
    for worker_id in ("default-1", "default-2"):
        mesh_world.kill(worker_id)
    assert ordered(mesh_world, moves) == []
    assert moves.failed == len(own(mesh_world)) or moves.failed > 0
