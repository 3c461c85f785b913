"""Groups that share GPUs, under traffic: every model is served, and they do not thrash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from meshserve.core.values import commands, llm_spec
from tests.core import llm_world

RESIDENCY_S = 30.0


def shared(name: str, **fields: Any) -> llm_spec.LlmSpec:
    return llm_world.spec(name, share="g", residency_s_min=RESIDENCY_S, **fields)


@pytest.fixture
def world() -> Iterator[llm_world.LlmWorld]:
    fresh = llm_world.LlmWorld(n1=1)
    fresh.apply_llms(shared("a"), shared("b"), shared("c"))
    fresh.perform_all()
    yield fresh
    fresh.check()


def ask(world: llm_world.LlmWorld, name: str) -> None:
    """Send a request as a client does: it waits only if the gateway holds it."""
    route = next(route for route in world.served["n1"].llms if route.name == name)
    if route.is_held:
        world.ask(name)
    else:
        world.engines[route.members[0].worker_id].requests += 1


def awake(world: llm_world.LlmWorld) -> list[str]:
    return [engine.spec.name for engine in world.engines.values() if engine.is_awake]


def swaps(world: llm_world.LlmWorld) -> int:
    return sum(isinstance(command, commands.SleepReplica) for command in world.log)


def turned_away(world: llm_world.LlmWorld) -> list[commands.HeldCommand]:
    return [answer for answer in world.answers.values() if isinstance(answer, commands.TurnAway)]


def test_one_model_starts_and_the_others_when_they_are_requested(world: llm_world.LlmWorld) -> None:
    assert awake(world) == ["a"]
    world.pass_time(100.0)
    assert sorted(world.engines) == ["a/0"]
    world.ask("b")
    world.perform_all()
    assert (awake(world), sorted(world.engines)) == (["b"], ["a/0", "b/0"])


def test_two_busy_models_take_turns_and_do_not_thrash(world: llm_world.LlmWorld) -> None:
    before_s, seconds = world.now_s, 600
    for _ in range(seconds):
        ask(world, "a")
        ask(world, "b")
        world.pass_time(1.0)
    assert swaps(world) <= (world.now_s - before_s) / RESIDENCY_S + 1
    assert swaps(world) >= seconds / RESIDENCY_S / 2
    world.pass_time(60.0)
    assert (world.waiting, turned_away(world)) == ({}, [])


def test_a_model_that_came_up_stays_for_its_residency_time(world: llm_world.LlmWorld) -> None:
    world.pass_time(RESIDENCY_S - 1.0)
    world.ask("b")
    world.perform_all()
    assert awake(world) == ["a"]
    world.pass_time(2.0)
    assert awake(world) == ["b"]


def test_an_idle_model_makes_way_at_once_after_its_residency_time(
    world: llm_world.LlmWorld,
) -> None:
    world.pass_time(RESIDENCY_S)
    ticket = world.ask("c")
    world.perform_all()
    assert awake(world) == ["c"]
    assert isinstance(world.answers[ticket], commands.Admit)


def test_a_sleeping_model_is_woken_and_not_started(world: llm_world.LlmWorld) -> None:
    world.pass_time(RESIDENCY_S)
    world.ask("b")
    world.pass_time(RESIDENCY_S)
    before = len(world.log)
    world.ask("a")
    world.perform_all()
    assert [type(command) for command in world.log[before:] if hasattr(command, "replica_id")] == [
        commands.SleepReplica,
        commands.WakeReplica,
    ]
    assert world.mesh.llms.llms["a"].wakes.expected_s == llm_world.WAKE_S


def test_three_models_that_are_always_requested_are_all_served(world: llm_world.LlmWorld) -> None:
    served = dict.fromkeys("abc", 0)
    for _ in range(400):
        for name in "abc":
            ask(world, name)
        world.pass_time(1.0)
        served[awake(world)[0]] += 1
    assert min(served.values()) >= RESIDENCY_S
    world.pass_time(120.0)
    assert (world.waiting, turned_away(world)) == ({}, [])


def test_a_model_that_can_not_be_started_costs_the_others_little(world: llm_world.LlmWorld) -> None:
    world.failing_starts = {"b"}
    for _ in range(300):
        world.ask("b")
        ask(world, "a")
        world.pass_time(1.0)
    starts = [
        command
        for command in world.log
        if isinstance(command, commands.StartReplica) and command.spec.name == "b"
    ]
    assert len(starts) <= 300 / RESIDENCY_S
    assert awake(world) == ["a"]
    assert world.mesh.llms.llms["b"].turned_away > 0


def test_an_idle_model_without_a_least_number_stops_and_frees_its_gpus() -> None:
    world = llm_world.LlmWorld(n1=1)
    world.apply_llms(
        shared("a", replicas_min=0, idle_timeout_s=50.0), llm_world.spec("alone", replicas_min=0)
    )
    world.perform_all()
    assert world.engines == {}
    world.ask("a")
    world.pass_time(60.0)
    assert (world.engines, world.taken) == ({}, {})
    world.ask("alone")
    world.perform_all()
    assert awake(world) == ["alone"]
