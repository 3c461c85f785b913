"""A node is drained: what it has moves, all leave it, and nothing comes to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshserve.core.mesh import mesh, node_drains
from meshserve.core.values import commands, desired, events, model, nodes, reports
from tests.core import world

MOVE_S = 60.0
NAMES = tuple(f"m{number}" for number in range(40))


@pytest.fixture
def three() -> Iterator[world.World]:
    """A mesh of three nodes, each with a worker of the pool and a gateway."""
    began = world.World(node_names=("n1", "n2", "n3"))
    specs = tuple(model.ModelSpec(model.ModelId(name), f"/{name}") for name in NAMES)
    began.apply(pools=(world.pool(workers=3),), models=specs)
    report_all(began)
    yield began
    began.check()


def worker_on(mesh_world: world.World, node: str) -> str:
    """Return the worker that runs on the node."""
    (worker_id,) = (id_ for id_, process in mesh_world.processes.items() if process.node == node)
    return worker_id


def report_all(mesh_world: world.World) -> None:
    """Let every worker report that it has the models whose home it is, each with room for all."""
    for id_ in list(mesh_world.processes):
        own = [name for name in NAMES if mesh_world.home(name) == id_]
        copies = tuple(world.ready_copy(model.ModelId(name)) for name in own)
        mesh_world.hear_report(id_, copies=copies, budget=model.Footprint(1 << 30))


def drain(mesh_world: world.World, node: str, **more: bool) -> tuple[str, ...]:
    return mesh_world.feed(events.NodeDrainRequested(node, MOVE_S, **more))


def phase(mesh_world: world.World, node: str) -> node_drains.DrainPhase:
    return mesh_world.mesh.drains.drains[node].phase


def ordered(mesh_world: world.World, kind: type[commands.Command]) -> list[commands.Command]:
    return [command for command in mesh_world.log if isinstance(command, kind)]


def finish(mesh_world: world.World) -> None:
    """Let the notice pass, and perform all that follows."""
    mesh_world.perform_all()
    mesh_world.tick(node_drains.NOTICE_S)
    mesh_world.perform_all()


def test_copies_are_loaded_where_requests_will_go_before_the_worker_leaves(
    three: world.World,
) -> None:
    going = worker_on(three, "n2")
    own = {name for name in NAMES if three.home(name) == going}
    drain(three, "n2")
    three.perform_all()
    loads = [command for command in three.log if isinstance(command, commands.EnsureLoaded)]
    assert {command.id.name for command in loads} == own
    assert ordered(three, commands.StopWorker) == []
    assert phase(three, "n2") is node_drains.DrainPhase.MOVING
    # Until the notice has passed, and then they are home where they were loaded.
    three.tick(node_drains.NOTICE_S)
    assert {c.id.name: c.worker_id for c in loads} == {name: three.home(name) for name in own}


def test_a_drained_node_has_nothing_and_gets_nothing(three: world.World) -> None:
    drain(three, "n2")
    finish(three)
    assert phase(three, "n2") is node_drains.DrainPhase.DRAINED
    assert three.gateways == {"n1", "n3"}
    assert {process.node for process in three.processes.values()} == {"n1", "n3"}
    assert len(three.processes) == 3
    assert list(three.mesh.drains.remaining("n2")) == []
    three.kill(next(iter(three.processes)))
    three.settle()
    assert {process.node for process in three.processes.values()} == {"n1", "n3"}


def test_its_gateway_is_not_ready_from_the_wish_on_and_leaves_after_its_workers(
    three: world.World,
) -> None:
    assert not three.mesh.gateway_snapshot("n2").is_leaving
    drain(three, "n2")
    assert three.mesh.gateway_snapshot("n2").is_leaving
    assert not three.mesh.gateway_snapshot("n1").is_leaving
    finish(three)
    kinds = [
        type(c) for c in three.log if isinstance(c, commands.StopWorker | commands.StopGateway)
    ]
    assert kinds == [commands.StopWorker, commands.StopGateway]


def test_loads_that_take_too_long_are_not_waited_for(three: world.World) -> None:
    drain(three, "n2")
    three.tick(node_drains.NOTICE_S)
    assert phase(three, "n2") is node_drains.DrainPhase.MOVING
    three.tick(MOVE_S)
    assert phase(three, "n2") is node_drains.DrainPhase.LEAVING


def test_the_last_node_can_not_be_drained(three: world.World) -> None:
    drain(three, "n1")
    drain(three, "n2")
    assert three.refused(events.NodeDrainRequested("n3", MOVE_S)) == "Conflict"


def test_a_pool_that_is_on_one_node_has_another_worker_before_it_leaves() -> None:
    mesh_world = world.World(node_names=("n1", "n2"))
    mesh_world.apply(pools=(world.pool(workers=1),))
    (node,) = (process.node for process in mesh_world.processes.values())
    drain(mesh_world, node)
    mesh_world.perform_all()
    for id_ in mesh_world.processes:
        mesh_world.hear_report(id_)
    assert set(mesh_world.processes) == {"default-0", "default-1"}
    assert mesh_world.mesh.workers.ready("default") == ["default-0", "default-1"]
    for _ in range(40):
        mesh_world.tick(1.0)
        # At each moment one of them answers.
        assert mesh_world.mesh.workers.ready("default")
        while any(mesh_world.lanes.values()):
            mesh_world.step(next(name for name, lane in mesh_world.lanes.items() if lane))
            assert mesh_world.mesh.workers.ready("default")
    assert set(mesh_world.processes) == {"default-0"}
    assert mesh_world.processes["default-0"].node != node
    assert phase(mesh_world, node) is node_drains.DrainPhase.DRAINED


def test_an_undone_drain_uses_the_node_again(three: world.World) -> None:
    drain(three, "n2")
    finish(three)
    assert three.feed(events.NodeDrainEndRequested("n2")) != ()
    three.perform_all()
    assert three.gateways == {"n1", "n2", "n3"}
    assert not three.mesh.gateway_snapshot("n2").is_leaving
    three.kill(worker_on(three, "n3") if len(three.processes) == 2 else "default-0")
    three.settle()
    assert "n2" in {process.node for process in three.processes.values()}


def test_a_node_that_leaves_ends_its_wish(three: world.World) -> None:
    drain(three, "n2")
    finish(three)
    three.see_nodes("n1", "n3")
    three.tick(1.0)
    assert three.mesh.drains.drains == {}
    saved = [c.changes for c in three.log if isinstance(c, commands.SaveChanges)]
    assert saved[-1] == (nodes.NodeDrainingEnded("n2"),)


def test_ray_ends_a_node_once_it_is_empty(three: world.World) -> None:
    drain(three, "n2", is_ended=True)
    assert ordered(three, commands.EndNode) == []
    finish(three)
    three.tick(1.0)
    assert ordered(three, commands.EndNode) == [commands.EndNode("n2")]


def test_a_new_controller_goes_on() -> None:
    living = events.LivingWorker(
        "default-0", world.pool().settings, model.Endpoint("n2", "h", 1), pid=7
    )
    wish = nodes.NodeDraining("n2", MOVE_S)
    started = mesh.Mesh()
    wanted = desired.Desired(pools=(world.pool(workers=2),))
    restored = events.Restored((wanted, wish), (living,))
    begun = started.handle(restored, 0.0)
    assert [c for c in begun if isinstance(c, commands.StartWorker)] == [
        commands.StartWorker("default-1", world.pool().settings, frozenset({"n2"}))
    ]
    assert started.drains.drains["n2"].wish == wish


def test_what_a_worker_has_no_room_for_is_left_to_its_next_request() -> None:
    mesh_world = world.World(node_names=("n1", "n2"))
    names = ("small", "big", "pinned")
    specs = tuple(
        model.ModelSpec(model.ModelId(name), f"/{name}", pinned=name == "pinned") for name in names
    )
    mesh_world.apply(pools=(world.pool(workers=2),), models=specs)
    going, staying = worker_on(mesh_world, "n2"), worker_on(mesh_world, "n1")
    sizes = {"small": 10, "big": 100, "pinned": 500}
    copies = tuple(
        reports.CopyReport(
            model.ModelId(name), "ready", footprint=model.Footprint(size), pinned=name == "pinned"
        )
        for name, size in sizes.items()
        if mesh_world.home(name) == going
    )
    mesh_world.hear_report(staying, budget=model.Footprint(50))
    mesh_world.hear_report(going, budget=model.Footprint(1000), copies=copies)
    mesh_world.log.clear()
    drain(mesh_world, "n2")
    loaded = {c.id.name for c in mesh_world.log if isinstance(c, commands.EnsureLoaded)}
    assert loaded == {copy.id.name for copy in copies} - {"big"}
