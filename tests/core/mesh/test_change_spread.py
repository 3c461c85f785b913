from __future__ import annotations

import pytest

from meshserve.core.mesh import change_spread
from meshserve.core.processes.reconcile import ProcessState
from meshserve.core.values import events, gateway_events
from tests.core import world


@pytest.fixture
def mesh_world() -> world.World:
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2),))
    fresh.settle()
    return fresh


def behind(mesh_world: world.World, mark: change_spread.ChangeMark) -> tuple[str, ...]:
    return change_spread.behind(mark, mesh_world.mesh.workers, mesh_world.mesh.gateways)


def noted(mesh_world: world.World) -> change_spread.ChangeMark:
    return change_spread.mark(mesh_world.mesh.workers, mesh_world.mesh.gateways)


def test_workers_are_behind_until_they_have_taken_a_change(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("new"),)))
    mark = noted(mesh_world)
    assert behind(mesh_world, mark) == ("worker default-0", "worker default-1")
    mesh_world.perform_all()
    assert behind(mesh_world, mark) == ()


def test_a_worker_that_serves_before_it_has_taken_a_change_is_behind(
    mesh_world: world.World,
) -> None:
    worker = mesh_world.mesh.workers.records["default-0"]
    worker.state = ProcessState.STARTING
    mesh_world.feed(events.ModelsRegistered((world.spec("new"),)))
    mark = noted(mesh_world)
    assert behind(mesh_world, mark) == ("worker default-1",)
    worker.state = ProcessState.READY
    assert behind(mesh_world, mark) == ("worker default-0", "worker default-1")


def test_a_worker_that_is_lost_is_out_of_the_route(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("new"),)))
    mark = noted(mesh_world)
    mesh_world.feed(events.WorkerLost("default-0", "it is gone"))
    assert behind(mesh_world, mark) == ("worker default-1",)


def test_gateways_are_behind_until_they_are_configured(mesh_world: world.World) -> None:
    mesh_world.mesh.gateways.configure()
    mark = noted(mesh_world)
    assert behind(mesh_world, mark) == (f"the gateway on {world.NODE}",)
    revision = mesh_world.mesh.gateways.revision
    mesh_world.feed(gateway_events.GatewayConfigured(world.NODE, revision))
    assert behind(mesh_world, mark) == ()
