"""What users are told of a mesh, from the same events that change it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from meshserve.core.mesh import event_log
from meshserve.core.values import (
    commands,
    desired,
    events,
    gateway_events,
    llm_events,
    mesh_events,
    model,
)
from tests.core import llm_world, world

A = model.ModelId("a")


@pytest.fixture
def mesh_world() -> world.World:
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2),))
    return fresh


def told(mesh_world: world.World, **choice: Any) -> list[mesh_events.MeshEvent]:
    log = mesh_world.mesh.view().events
    return [numbered.event for numbered in log.read(event_log.EventChoice(**choice))]


def reasons(mesh_world: world.World, kind: str) -> list[str]:
    return [event.reason for event in told(mesh_world, kind=kind)]


def copy_event(number: int, kind: Any = "loaded", **fields: Any) -> mesh_events.CopyEvent:
    return mesh_events.CopyEvent(number, kind, A, **fields)


def test_a_start_is_told(mesh_world: world.World) -> None:
    assert [event.process for event in told(mesh_world, kind="started")] == [
        "default-0",
        "default-1",
    ]
    assert {event.process for event in told(mesh_world, kind="ready")} == {
        "default-0",
        "default-1",
        "gateway",
    }
    assert {event.node for event in told(mesh_world, kind="ready")} == {world.NODE}


def test_a_death_is_told_with_its_reason_and_once(mesh_world: world.World) -> None:
    pid = mesh_world.processes["default-0"].pid
    mesh_world.kill("default-0")
    mesh_world.feed(events.WorkerLost("default-0", "told by the other task", pid))
    [lost] = told(mesh_world, kind="lost")
    assert (lost.process, lost.reason, lost.node) == ("default-0", "killed", world.NODE)
    mesh_world.settle()
    assert told(mesh_world, about="default-0")[-1].kind == "ready"


@pytest.mark.parametrize("is_known", [False, True])
def test_an_end_that_was_ordered_is_no_loss_whoever_tells_of_it_first(
    mesh_world: world.World, is_known: bool
) -> None:
    pid = mesh_world.processes["default-1"].pid
    config = desired.Desired(pools=(world.pool(workers=1),))
    mesh_world.feed(events.ConfigApplied(config))
    mesh_world.log.clear()
    lost = events.WorkerLost("default-1", "the actor died unexpectedly", pid if is_known else 0)
    unwatched = [
        command
        for command in mesh_world.mesh.handle(lost, mesh_world.now_s)
        if isinstance(command, commands.Unwatch)
    ]
    # With a reason the controller would warn of it.
    assert unwatched == [commands.Unwatch("worker", "default-1")]
    assert reasons(mesh_world, "lost") == []
    assert [event.process for event in told(mesh_world, kind="stopping")] == ["default-1"]


def test_a_worker_s_events_have_the_time_at_which_they_happened(mesh_world: world.World) -> None:
    mesh_world.now_s += 100.0
    mesh_world.hear_report(
        "default-0", events=(copy_event(1, reason="1 waited for it", took_s=2.0, ago_s=0.75),)
    )
    [event] = told(mesh_world, kind="loaded")
    assert event == mesh_events.MeshEvent(
        mesh_world.now_s - 0.75,
        "loaded",
        "1 waited for it",
        *("a", "1", "default-0", world.NODE),
        took_s=2.0,
    )


def test_what_comes_again_is_logged_once(mesh_world: world.World) -> None:
    mesh_world.hear_report("default-0", events=(copy_event(1), copy_event(2)))
    mesh_world.hear_report("default-0", events=(copy_event(1), copy_event(2), copy_event(3)))
    assert len(told(mesh_world, kind="loaded")) == 3
    assert mesh_world.mesh.view().events.missed == 0


def test_what_a_worker_has_forgotten_is_counted(mesh_world: world.World) -> None:
    mesh_world.hear_report("default-0", events=(copy_event(1),))
    mesh_world.hear_report("default-0", events=(copy_event(5),))
    assert mesh_world.mesh.view().events.missed == 3


def test_a_new_process_counts_anew(mesh_world: world.World) -> None:
    mesh_world.hear_report("default-0", events=(copy_event(7),))
    mesh_world.kill("default-0")
    mesh_world.settle()
    mesh_world.hear_report("default-0", events=(copy_event(1),))
    assert len(told(mesh_world, kind="loaded")) == 2


def test_a_new_controller_learns_what_workers_remember() -> None:
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=1),))
    process = fresh.processes["default-0"]
    endpoint = model.Endpoint(world.NODE, "127.0.0.1", 1)
    living = events.LivingWorker("default-0", process.settings, endpoint, process.pid)
    successor = world.World()
    successor.processes = fresh.processes
    successor.feed(events.Restored(workers=(living,)))
    successor.hear_report("default-0", events=(copy_event(400, ago_s=50.0),))
    [event] = told(successor, kind="loaded")
    assert event.at_s == -50.0
    assert successor.mesh.view().events.missed == 0


def test_a_change_says_by_whom(mesh_world: world.World) -> None:
    request = events.ModelsRegistered((world.spec("a"),))
    mesh_world.request(lambda ticket: events.AdminRequested(ticket, request, "ops"))
    [event] = told(mesh_world, about="a:1", kind="changed")
    assert (event.reason, event.by) == ("model a:1 added", "ops")


def test_of_a_big_change_the_first_lines_are_told(mesh_world: world.World) -> None:
    specs = tuple(world.spec(f"m{number:03}") for number in range(300))
    mesh_world.feed(events.ModelsRegistered(specs))
    lines = [reason for reason in reasons(mesh_world, "changed") if "m" in reason]
    assert len(lines) < 30
    assert "and 280 more changes of the same request" in lines


def test_what_could_not_be_saved_is_no_event(mesh_world: world.World) -> None:
    before = len(told(mesh_world, kind="changed"))
    with pytest.raises(Exception, match="broken"):
        mesh_world.feed(events.ModelsRegistered((world.spec("a"),)), is_store_broken=True)
    mesh_world.feed(events.ModelsRegistered((world.spec("b"),)))
    assert reasons(mesh_world, "changed")[before:] == ["model b:1 added"]


def test_the_end_of_a_gateway_is_told(mesh_world: world.World) -> None:
    mesh_world.feed(gateway_events.GatewayLost(world.NODE, "envoy ended"))
    [lost] = told(mesh_world, kind="lost")
    assert (lost.process, lost.node, lost.reason) == ("gateway", world.NODE, "envoy ended")
    mesh_world.settle()
    assert [event.process for event in told(mesh_world, kind="ready")].count("gateway") == 2


def test_a_drain_is_told(mesh_world: world.World) -> None:
    mesh_world.feed(events.DrainRequested())
    assert len(told(mesh_world, kind="draining")) == 1
    assert {event.process for event in told(mesh_world, kind="stopping")} == {"gateway"}


def test_a_pool_s_events_are_those_of_its_size_its_settings_and_its_workers() -> None:
    scaling = desired.ScalingSettings(0, shrink_after_s=10.0)
    sleepy = dataclasses.replace(world.pool("rare", workers=2), scaling=scaling)
    mesh_world = world.World()
    mesh_world.apply(pools=(world.pool(), sleepy), models=(world.spec("a", pool="rare"),))
    mesh_world.feed(llm_events.RequestHeld("t", "a", 1, is_small=True))
    for _ in range(30):
        mesh_world.perform_all()
        mesh_world.tick(1.0)
    mesh_world.feed(events.ModelRemoved("a"))
    mesh_world.feed(events.ConfigApplied(desired.Desired(pools=(world.pool(),))))
    about = [(event.kind, event.reason) for event in told(mesh_world, about="rare")]
    assert {kind for kind, _ in about} == {"changed", "started", "ready", "scaled", "stopping"}
    assert [reason for kind, reason in about if kind == "scaled"] == [
        "pool rare: 0 → 1 workers: a request came",
        "pool rare: 1 → 0 workers: nobody calls its models",
    ]
    assert ("stopping", "its pool shrinks to 0: nobody calls its models") in about
    assert ("changed", "pool rare removed") in about


def test_a_pool_s_size_that_its_configuration_changes_is_told_with_that_reason() -> None:
    mesh_world = world.World()

    def apply(workers: int, least: int | None = None) -> None:
        scaling = None if least is None else desired.ScalingSettings(least, shrink_after_s=10.0)
        mesh_world.apply(pools=(dataclasses.replace(world.pool(workers=workers), scaling=scaling),))

    apply(2, 0)
    apply(2, 1)
    assert reasons(mesh_world, "scaled") == [
        "pool default: 0 → 1 workers: its configuration changed"
    ]
    apply(2)
    apply(2, 0)
    for _ in range(30):
        mesh_world.tick(1.0)
        mesh_world.perform_all()
    assert mesh_world.processes == {}
    # A fixed number is told as a change of the configuration, and a pool begins with what it has.
    assert reasons(mesh_world, "scaled")[1:] == [
        "pool default: 2 → 0 workers: nobody calls its models"
    ]
    assert reasons(mesh_world, "changed")[1:] == [
        "pool default: 0 to 2 → 1 to 2 workers",
        "pool default: 1 to 2 → 2 workers",
        "pool default: 2 → 0 to 2 workers",
    ]


def test_an_llm_s_scaling_starts_and_losses_are_told() -> None:
    mesh_world = llm_world.LlmWorld()
    mesh_world.apply(llms=(llm_world.spec("qwen", replicas_min=1),))
    assert "0 → 1 replicas: replicas.min is 1" in reasons(mesh_world, "scaled")
    [ready] = [event for event in told(mesh_world, kind="ready") if event.model == "qwen"]
    assert (ready.process, ready.took_s) == ("qwen/0", llm_world.START_S)
    pid = mesh_world.engines["qwen/0"].pid
    for _ in range(2):
        mesh_world.feed(llm_events.ReplicaLost("qwen/0", "out of memory", pid))
    [lost] = told(mesh_world, kind="lost")
    assert (lost.process, lost.reason) == ("qwen/0", "out of memory")
