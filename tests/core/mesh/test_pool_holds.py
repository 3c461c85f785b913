from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from meshserve.core.values import commands, desired, events, llm_events, llm_spec, reports
from tests.core import world

LIMITS = llm_spec.HoldLimits(requests_max=5, bytes_max=1000, wait_s_max=100.0)
SCALING = desired.ScalingSettings(0, grow_after_s=5.0, shrink_after_s=30.0, held=LIMITS)
POOL = dataclasses.replace(world.pool(workers=2), scaling=SCALING)

Ask = Callable[..., None]


@pytest.fixture
def stage() -> world.World:
    stage = world.World()
    stage.apply(pools=(POOL,), models=(world.spec("a"),))
    return stage


@pytest.fixture
def ask(stage: world.World) -> Ask:
    def ask(ticket: str, name: str = "a", size_bytes: int = 10) -> None:
        stage.feed(llm_events.RequestHeld(ticket, name, size_bytes, is_small=True))
        stage.check()

    return ask


def kinds(stage: world.World) -> dict[str, type[commands.HeldCommand]]:
    return {ticket: type(answer) for ticket, answer in stage.held_answers.items()}


def pass_time(stage: world.World, seconds: int, requests: int = 1) -> None:
    for _ in range(seconds):
        for worker_id in list(stage.processes):
            if stage.mesh.workers.is_ready(worker_id):
                stage.hear_report(worker_id, counters=reports.Counters(requests=requests))
        stage.tick(1.0)
        stage.perform_all()
        stage.check()


def test_a_pool_that_nobody_calls_has_no_worker_and_gateways_hold_its_requests(
    stage: world.World,
) -> None:
    assert stage.processes == {}
    snapshot = stage.mesh.gateway_snapshot(world.NODE)
    assert snapshot.held == {"default": 100.0}
    assert snapshot.workers_wanted == 0


def test_the_first_request_starts_one_worker_and_all_wait_for_it(
    stage: world.World, ask: Ask
) -> None:
    stage.log.clear()
    for number in range(3):
        ask(f"t{number}")
    assert stage.held_answers == {}
    starts = [command for command in stage.log if isinstance(command, commands.StartWorker)]
    assert [start.worker_id for start in starts] == ["default-0"]
    stage.perform_all()
    assert kinds(stage) == dict.fromkeys(("t0", "t1", "t2"), commands.Admit)
    assert stage.mesh.gateway_snapshot(world.NODE).held == {}


def test_no_request_goes_on_before_every_gateway_knows_the_worker(
    stage: world.World, ask: Ask
) -> None:
    ask("t")
    while stage.lanes["default-0"]:
        stage.step("default-0")
    assert stage.mesh.workers.has_ready("default")
    assert stage.held_answers == {}
    ask("later")
    assert stage.held_answers == {}
    stage.perform_all()
    assert kinds(stage) == dict.fromkeys(("t", "later"), commands.Admit)


def test_an_unknown_model_wakes_nobody(stage: world.World, ask: Ask) -> None:
    ask("t", "unknown")
    answer = stage.held_answers["t"]
    assert isinstance(answer, commands.TurnAway)
    assert answer.is_unknown
    assert "unknown" in answer.reason
    stage.perform_all()
    assert stage.processes == {}


def test_it_sleeps_again_after_the_last_request_and_wakes_again(
    stage: world.World, ask: Ask
) -> None:
    ask("t")
    stage.perform_all()
    pass_time(stage, 25)
    assert set(stage.processes) == {"default-0"}
    pass_time(stage, 30)
    assert stage.processes == {}
    assert stage.mesh.gateway_snapshot(world.NODE).held == {"default": 100.0}
    ask("again")
    stage.perform_all()
    assert kinds(stage)["again"] is commands.Admit


def test_a_pool_that_has_fallen_asleep_is_not_woken_by_the_end_of_its_worker() -> None:
    stage = world.World()
    quick = dataclasses.replace(SCALING, grow_after_s=0.5, shrink_after_s=5.0)
    stage.apply(pools=(dataclasses.replace(POOL, scaling=quick),), models=(world.spec("a"),))
    stage.feed(llm_events.RequestHeld("t", "a", 10, is_small=True))
    stage.perform_all()
    for _ in range(40):
        pass_time(stage, 1, requests=7)
    assert stage.processes == {}
    assert stage.mesh.pool_sizes.sizes["default"].changes == 2


def test_a_request_that_comes_while_the_last_worker_drains_waits_for_the_next(
    stage: world.World, ask: Ask
) -> None:
    ask("t")
    stage.perform_all()
    for _ in range(60):
        stage.tick(1.0)
        if any(isinstance(command, commands.StopWorker) for command in stage.lanes["default-0"]):
            break
    ask("late")
    assert "late" not in stage.held_answers
    stage.perform_all()
    assert kinds(stage)["late"] is commands.Admit


def test_starts_that_fail_twice_are_told_and_so_are_requests_after_them(
    stage: world.World, ask: Ask
) -> None:
    ask("t")
    stage.lanes["default-0"].clear()
    stage.feed(events.WorkerLost("default-0", "no room at /var/lib/x", 0))
    assert stage.held_answers == {}, "the second try comes at once"
    stage.lanes["default-0"].clear()
    stage.feed(events.WorkerLost("default-0", "no room at /var/lib/x", 0))
    answer = stage.held_answers["t"]
    assert isinstance(answer, commands.TurnAway)
    assert "does not start: no room at x" in answer.reason
    ask("next")
    refusal = stage.held_answers["next"]
    assert isinstance(refusal, commands.TurnAway)
    assert refusal.retry_after_s >= 1.0
    pass_time(stage, 40, requests=0)
    ask("last")
    stage.perform_all()
    assert kinds(stage)["last"] is commands.Admit


def test_a_worker_that_started_each_time_and_was_lost_is_not_said_not_to_start(
    stage: world.World, ask: Ask
) -> None:
    ask("t")
    stage.perform_all()
    stage.kill("default-0")
    stage.perform_all()
    stage.kill("default-0")
    ask("next")
    refusal = stage.held_answers["next"]
    assert isinstance(refusal, commands.TurnAway)
    assert "its worker was lost 2 times in a row, and starts again: killed" in refusal.reason
    pass_time(stage, 3, requests=0)
    ask("last")
    assert kinds(stage)["last"] is commands.Admit


def test_requests_beyond_the_limits_and_the_time_are_turned_away(
    stage: world.World, ask: Ask
) -> None:
    for number in range(6):
        ask(f"t{number}")
    assert kinds(stage) == {"t5": commands.TurnAway}
    ask("big", size_bytes=1001)
    assert kinds(stage)["big"] is commands.TurnAway
    stage.feed(llm_events.HeldRequestLeft("t0"))
    ask("in its place")
    for _ in range(100):
        stage.tick(1.0)
    assert "t0" not in stage.held_answers
    assert kinds(stage)["in its place"] is commands.TurnAway


def test_a_pool_that_goes_turns_its_requests_away(stage: world.World, ask: Ask) -> None:
    other = world.pool("other", 1)
    stage.feed(events.ConfigApplied(desired.Desired(pools=(POOL, other))))
    stage.feed(
        events.ConfigApplied(desired.Desired(pools=(POOL, other), models=(world.spec("a"),)))
    )
    ask("t")
    stage.feed(events.DrainRequested())
    assert kinds(stage)["t"] is commands.TurnAway


def test_a_pool_with_a_worker_at_least_holds_nothing(stage: world.World, ask: Ask) -> None:
    awake = dataclasses.replace(POOL, scaling=dataclasses.replace(SCALING, workers_min=1))
    ask("t")
    stage.apply(pools=(awake,), models=(world.spec("a"),))
    assert kinds(stage)["t"] is commands.Admit
    stage.kill("default-0")
    assert stage.mesh.gateway_snapshot(world.NODE).held == {}
    ask("late")
    assert "late" not in stage.held_answers, "a gateway asked by what it knew before"
    stage.perform_all()
    assert kinds(stage)["late"] is commands.Admit
