"""Replicas that already run when a controller begins."""

from __future__ import annotations

from meshserve.core.mesh import mesh
from meshserve.core.values import commands, desired, events, llm_spec, model
from tests.core import llm_world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


def test_replicas_that_already_run_are_taken_over() -> None:
    fresh, specs = mesh.Mesh(), (llm_world.spec("a"), llm_world.spec("b"), llm_world.spec("gone"))
    living = tuple(
        llm_spec.LivingReplica(f"{spec.name}/3", spec, ENDPOINT, 7, is_asleep=spec.name == "b")
        for spec in specs
    )
    wanted = desired.Desired(pools=(), llms=specs[:2])
    ordered = fresh.handle(events.Restored((wanted,), replicas=living), 0.0)
    assert ordered[:3] == [commands.Watch("replica", f"{spec.name}/3", 7) for spec in specs]
    assert ordered[3:] == [commands.WakeReplica("b/3")]
    assert [(route.name, route.is_held) for route in fresh.gateway_snapshot("n1").llms] == [
        ("a", False),
        ("b", True),
    ]
    assert fresh.handle(events.Ticked(), 0.0) == [commands.StopReplica("gone/3")]
    fresh.check()


def test_the_llm_that_is_awake_when_the_controller_begins_has_the_turn() -> None:
    fresh, specs = mesh.Mesh(), tuple(llm_world.spec(name, share="g") for name in "ab")
    living = tuple(
        llm_spec.LivingReplica(f"{spec.name}/0", spec, ENDPOINT, 7, is_asleep=spec.name == "a")
        for spec in specs
    )
    wanted = desired.Desired(pools=(), llms=specs)
    ordered = fresh.handle(events.Restored((wanted,), replicas=living), 0.0)
    assert {type(command) for command in ordered} == {commands.Watch}
    assert (fresh.llms.fleet.turns, fresh.llms.llms["a"].state) == ({"g": "b"}, "asleep")
    fresh.check()
