"""Groups that share GPUs, under traffic: nobody is forgotten, nobody thrashes, and the clock is the test's."""

from __future__ import annotations

import pytest

from meshserve.core.values import commands
from tests.core import llm_world

RESIDENCY_S = 30.0


def shared(name, **fields):
    return llm_world.spec(name, share="g", residency_s_min=RESIDENCY_S, **fields)


@pytest.fixture
def made():
    fresh = llm_world.LlmWorld(n1=1)
    fresh.apply_llms(shared("a"), shared("b"), shared("c"))
    fresh.perform_all()
    yield fresh
    fresh.check()


def ask(made, name):
    """A request as a client makes it: it is held only where the gateway holds, and else is the engine's at once."""
    route = next(each for each in made.served["n1"].llms if each.name == name)
    if route.is_held:
        made.ask(name)
    else:
        made.engines[route.members[0].worker_id].requests += 1


def awake(made):
    return [engine.spec.name for engine in made.engines.values() if engine.is_awake]


def swaps(made):
    return sum(isinstance(command, commands.SleepReplica) for command in made.log)


def turned_away(made):
    return [answer for answer in made.answers.values() if isinstance(answer, commands.TurnAway)]


def test_one_starts_and_the_others_when_they_are_asked_for(made):
    assert awake(made) == ["a"]
    made.pass_time(100.0)
    assert sorted(made.engines) == ["a/0"]
    made.ask("b")
    made.perform_all()
    assert (awake(made), sorted(made.engines)) == (["b"], ["a/0", "b/0"])


def test_two_busy_models_take_turns_and_do_not_thrash(made):
    before_s, seconds = made.now_s, 600
    for _ in range(seconds):
        ask(made, "a")
        ask(made, "b")
        made.pass_time(1.0)
    assert swaps(made) <= (made.now_s - before_s) / RESIDENCY_S + 1
    assert swaps(made) >= seconds / RESIDENCY_S / 2
    made.pass_time(60.0)
    assert (made.waiting, turned_away(made)) == ({}, [])


def test_a_model_that_came_up_stays_for_its_time_whoever_is_asked_for(made):
    made.pass_time(RESIDENCY_S - 1.0)
    made.ask("b")
    made.perform_all()
    assert awake(made) == ["a"]
    made.pass_time(2.0)
    assert awake(made) == ["b"]


def test_an_idle_model_makes_way_at_once_when_its_time_is_over(made):
    made.pass_time(RESIDENCY_S)
    ticket = made.ask("c")
    made.perform_all()
    assert awake(made) == ["c"]
    assert isinstance(made.answers[ticket], commands.Admit)


def test_a_model_that_sleeps_is_woken_and_not_started(made):
    made.pass_time(RESIDENCY_S)
    made.ask("b")
    made.pass_time(RESIDENCY_S)
    before = len(made.log)
    made.ask("a")
    made.perform_all()
    assert [type(each) for each in made.log[before:] if hasattr(each, "replica_id")] == [
        commands.SleepReplica,
        commands.WakeReplica,
    ]
    assert made.mesh.llms.llms["a"].wakes.expected_s == llm_world.WAKE_S


def test_three_that_are_asked_for_all_the_time_are_all_served(made):
    served = dict.fromkeys("abc", 0)
    for _ in range(400):
        for name in "abc":
            ask(made, name)
        made.pass_time(1.0)
        served[awake(made)[0]] += 1
    assert min(served.values()) >= RESIDENCY_S
    made.pass_time(120.0)
    assert (made.waiting, turned_away(made)) == ({}, [])


def test_a_model_that_can_not_be_started_costs_the_others_little(made):
    made.failing_starts = {"b"}
    for _ in range(300):
        made.ask("b")
        ask(made, "a")
        made.pass_time(1.0)
    starts = [
        command
        for command in made.log
        if isinstance(command, commands.StartReplica) and command.spec.name == "b"
    ]
    assert len(starts) <= 300 / RESIDENCY_S
    assert awake(made) == ["a"]
    assert made.mesh.llms.llms["b"].turned_away > 0


def test_a_member_without_a_least_number_goes_when_it_is_idle_and_leaves_its_gpus():
    made = llm_world.LlmWorld(n1=1)
    made.apply_llms(
        shared("a", replicas_min=0, idle_timeout_s=50.0), llm_world.spec("alone", replicas_min=0)
    )
    made.perform_all()
    assert made.engines == {}
    made.ask("a")
    made.pass_time(60.0)
    assert (made.engines, made.taken) == ({}, {})
    made.ask("alone")
    made.perform_all()
    assert awake(made) == ["alone"]
