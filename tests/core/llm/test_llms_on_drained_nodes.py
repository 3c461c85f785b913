"""LLMs on a node that is drained: another engine comes first where there is room."""

from __future__ import annotations

from typing import Any

from meshserve.core.mesh import node_drains
from meshserve.core.values import commands, events
from tests.core import llm_world

MOVE_S = 120.0


def begin(**fields: Any) -> llm_world.LlmWorld:
    """An LLM that runs on one of two nodes with a GPU each, the first of them the head."""
    mesh_world = llm_world.LlmWorld(n1=1, n2=1)
    mesh_world.see_nodes("n1", "n2")
    spec = llm_world.spec("a", **{"replicas_min": 1, "replicas_max": 1, **fields})
    mesh_world.apply(llms=(spec,))
    return mesh_world


def node_of(mesh_world: llm_world.LlmWorld, id_: str) -> str:
    replica = mesh_world.mesh.llms.fleet.find_replica(id_)
    assert replica is not None
    assert replica.endpoint is not None
    return replica.endpoint.node


def stopped(mesh_world: llm_world.LlmWorld) -> list[str]:
    log = mesh_world.log
    return [command.replica_id for command in log if isinstance(command, commands.StopReplica)]


def drain(mesh_world: llm_world.LlmWorld, node: str) -> None:
    mesh_world.feed(events.NodeDrainRequested(node, MOVE_S))


def settle(mesh_world: llm_world.LlmWorld) -> None:
    for _ in range(5):
        mesh_world.perform_all()
        mesh_world.see_capacity()
        for worker_id in mesh_world.processes:
            mesh_world.hear_report(worker_id)
        mesh_world.tick(node_drains.NOTICE_S)


def test_another_engine_serves_elsewhere_before_the_drained_one_ends() -> None:
    mesh_world = begin()
    before = node_of(mesh_world, "a/0")
    drain(mesh_world, before)
    started = [c for c in mesh_world.log if isinstance(c, commands.StartReplica)][-1]
    assert started.replica_id == "a/1"
    assert started.plan.node not in ("", before)
    assert stopped(mesh_world) == []
    settle(mesh_world)
    assert stopped(mesh_world) == ["a/0"]
    assert node_of(mesh_world, "a/1") != before
    assert mesh_world.mesh.drains.drains[before].phase is node_drains.DrainPhase.DRAINED


def test_without_room_elsewhere_it_goes_first_and_says_what_is_missing() -> None:
    mesh_world = begin()
    before = node_of(mesh_world, "a/0")
    (other,) = {"n1", "n2"} - {before}
    mesh_world.others[other] = 1
    mesh_world.see_capacity()
    drain(mesh_world, before)
    settle(mesh_world)
    (llm,) = mesh_world.mesh.view().llms
    assert "a/0" not in {replica.id for replica in llm.replicas if replica.state == "ready"}
    assert "GPU" in llm.reason
    assert mesh_world.mesh.drains.drains[before].phase is node_drains.DrainPhase.DRAINED
    mesh_world.feed(events.NodeDrainEndRequested(before))
    settle(mesh_world)
    assert [r.state for r in mesh_world.mesh.view().llms[0].replicas] == ["ready"]


def test_one_that_does_not_come_up_elsewhere_in_time_is_not_waited_for() -> None:
    mesh_world = begin()
    before = node_of(mesh_world, "a/0")
    mesh_world.failing_starts.add("a")
    drain(mesh_world, before)
    mesh_world.perform_all()
    assert stopped(mesh_world) == []
    mesh_world.tick(MOVE_S)
    settle(mesh_world)
    assert "a/0" in stopped(mesh_world)


def test_an_engine_without_gpus_is_kept_away_from_the_node() -> None:
    mesh_world = begin(device="cpu")
    before = node_of(mesh_world, "a/0")
    drain(mesh_world, before)
    settle(mesh_world)
    started = [c for c in mesh_world.log if isinstance(c, commands.StartReplica)][-1]
    assert started.plan.avoided == (before,)
    assert node_of(mesh_world, started.replica_id) != before
    assert stopped(mesh_world) == ["a/0"]
