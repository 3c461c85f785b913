from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshserve.core.values import commands, events, llm_events, llm_spec, model, snapshots
from tests.core import llm_world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


@pytest.fixture
def world() -> Iterator[llm_world.LlmWorld]:
    fresh = llm_world.LlmWorld()
    fresh.settle()
    yield fresh
    fresh.check()


def apply(world: llm_world.LlmWorld, *specs: llm_spec.LlmSpec) -> None:
    world.apply_llms(*specs)
    world.perform_all()


def orders(world: llm_world.LlmWorld, before: int = 0) -> list[str]:
    """Return the commands to replicas and gateways since `before`, as words."""
    kinds = (
        commands.StartReplica,
        commands.StopReplica,
        commands.SleepReplica,
        commands.WakeReplica,
        commands.ConfigureGateway,
    )
    return [
        f"{type(command).__name__} {getattr(command, 'replica_id', command)}"
        for command in world.log[before:]
        if isinstance(command, kinds)
    ]


def replica_orders(world: llm_world.LlmWorld, before: int = 0) -> list[str]:
    return [order for order in orders(world, before) if "Gateway" not in order]


def refusal(world: llm_world.LlmWorld, ticket: str) -> commands.TurnAway:
    answer = world.answers[ticket]
    assert isinstance(answer, commands.TurnAway)
    return answer


def retry_s(world: llm_world.LlmWorld, ticket: str) -> float:
    return refusal(world, ticket).retry_after_s


def route(world: llm_world.LlmWorld, name: str = "a") -> snapshots.LlmRoute:
    llms = world.mesh.gateway_snapshot("n1").llms
    return next(route for route in llms if route.name == name)


# Starting


def test_a_configured_llm_is_started_and_routed_to(world: llm_world.LlmWorld) -> None:
    world.apply_llms(llm_world.spec("a", tensor_parallel_size=2))
    start = next(command for command in world.log if isinstance(command, commands.StartReplica))
    assert (start.replica_id, start.plan) == ("a/0", llm_spec.ReplicaPlan((2,), "mp", "n1"))
    assert route(world).is_held
    world.perform_all()
    assert [member.worker_id for member in route(world).members] == ["a/0"]
    assert not route(world).is_held


def test_an_llm_without_gpus_waits_with_a_reason_and_others_start(
    world: llm_world.LlmWorld,
) -> None:
    apply(
        world,
        llm_world.spec("a", tensor_parallel_size=3),
        llm_world.spec("b", tensor_parallel_size=2),
        llm_world.spec("c"),
    )
    llms = world.mesh.llms.llms
    assert (llms["b"].state, llms["b"].reason) == (
        "starting",
        "it needs 2 GPUs and 0 are free on n1; a/0 holds 3; c/0 holds 1",
    )
    assert llms["c"].state == "ready"
    world.apply_llms(llm_world.spec("b", tensor_parallel_size=2), llm_world.spec("c"))
    world.perform_all()
    assert llms["b"].state == "ready"


def test_a_failing_start_is_tried_again_after_growing_waits(world: llm_world.LlmWorld) -> None:
    world.failing_starts = {"a"}
    apply(world, llm_world.spec("a"))
    world.pass_time(60.0)
    # The second failure alike is taken for one that lasts.
    assert "it can't be loaded (this does not pass by itself" in world.mesh.llms.llms["a"].reason
    assert replica_orders(world) == ["StartReplica a/0"] * 2
    world.failing_starts = set()
    world.pass_time(90.0)
    assert world.mesh.llms.llms["a"].state == "ready"


def test_an_unknown_replica_that_comes_up_is_stopped(world: llm_world.LlmWorld) -> None:
    world.feed(llm_events.ReplicaReady("z/0", ENDPOINT, 1, 1.0))
    assert replica_orders(world) == ["StopReplica z/0"]
    for late in (
        llm_events.ReplicaStopped("z/0"),
        llm_events.ReplicaSlept("z/0"),
        llm_events.ReplicaWoken("z/0", 1.0),
        llm_events.ReplicaLost("z/0", "gone"),
    ):
        world.feed(late)
    world.feed(llm_events.ReplicaReported(llm_spec.LlmReport("z/0")))
    assert len(replica_orders(world)) == 1


def test_the_loss_of_an_earlier_process_changes_nothing(world: llm_world.LlmWorld) -> None:
    apply(world, llm_world.spec("a"))
    world.feed(llm_events.ReplicaLost("a/0", "gone", 999))
    assert world.mesh.llms.llms["a"].state == "ready"


# From zero


@pytest.fixture
def cold(world: llm_world.LlmWorld) -> llm_world.LlmWorld:
    apply(
        world,
        llm_world.spec(
            "a", replicas_min=0, idle_timeout_s=20.0, held=llm_spec.HoldLimits(50, 1000, 100.0)
        ),
    )
    return world


def test_fifty_first_requests_make_one_start_and_are_admitted_in_order(
    cold: llm_world.LlmWorld,
) -> None:
    tickets = [cold.ask("a") for _ in range(50)]
    assert replica_orders(cold) == ["StartReplica a/0"]
    cold.perform_all()
    admitted = [command for command in cold.log if isinstance(command, commands.Admit)]
    assert [command.ticket for command in admitted] == tickets


def test_requests_are_admitted_only_when_gateways_know_the_replica(
    cold: llm_world.LlmWorld,
) -> None:
    cold.ask("a")
    cold.step("replica a/0")
    assert cold.answers == {}
    cold.step("gateway n1")
    assert isinstance(cold.answers["t1"], commands.Admit)


def test_a_request_over_the_limit_hears_the_expected_rest_of_the_start(
    cold: llm_world.LlmWorld,
) -> None:
    for _ in range(50):
        cold.ask("a")
    cold.tick(15.0)
    assert retry_s(cold, cold.ask("a")) == 45.0


def test_a_request_that_waited_too_long_is_turned_away(cold: llm_world.LlmWorld) -> None:
    first = cold.ask("a")
    cold.tick(99.0)
    assert cold.answers == {}
    cold.tick(1.0)
    assert isinstance(cold.answers[first], commands.TurnAway)


def test_a_start_is_given_up_when_no_request_waits_for_it_any_more(
    cold: llm_world.LlmWorld,
) -> None:
    cold.leave(cold.ask("a"))
    cold.tick(20.0)
    assert replica_orders(cold) == ["StartReplica a/0", "StopReplica a/0"]


def test_an_idle_engine_stops_only_when_gateways_hold_its_requests(
    cold: llm_world.LlmWorld,
) -> None:
    cold.ask("a")
    cold.perform_all()
    before = len(cold.log)
    cold.pass_time(19.0)
    assert orders(cold, before) == []
    cold.tick(1.0)
    assert replica_orders(cold, before) == []
    assert (route(cold).is_held, len(route(cold).members)) == (True, 1)
    cold.step("gateway n1")
    assert replica_orders(cold, before) == ["StopReplica a/0"]
    cold.perform_all()
    assert (cold.engines, cold.taken, route(cold).members) == ({}, {}, ())


def test_a_request_before_the_order_to_stop_keeps_the_engine(cold: llm_world.LlmWorld) -> None:
    cold.ask("a")
    cold.pass_time(19.0)
    before = len(cold.log)
    cold.tick(1.0)
    ticket = cold.ask("a")
    cold.perform_all()
    assert replica_orders(cold, before) == []
    assert isinstance(cold.answers[ticket], commands.Admit)


def test_a_request_after_the_order_to_stop_starts_another_engine(cold: llm_world.LlmWorld) -> None:
    cold.ask("a")
    cold.pass_time(19.0)
    cold.tick(1.0)
    cold.step("gateway n1")
    ticket = cold.ask("a")
    assert replica_orders(cold)[-2:] == ["StopReplica a/0", "StartReplica a/1"]
    cold.perform_all()
    assert isinstance(cold.answers[ticket], commands.Admit)


def test_an_engine_in_use_is_not_stopped(cold: llm_world.LlmWorld) -> None:
    cold.ask("a")
    cold.perform_all()
    cold.engines["a/0"].running = 1
    cold.pass_time(100.0)
    cold.engines["a/0"].running = 0
    cold.pass_time(10.0)
    assert "a/0" in cold.engines
    cold.pass_time(11.0)
    assert cold.engines == {}


def test_requests_between_two_reports_count_as_use(cold: llm_world.LlmWorld) -> None:
    cold.ask("a")
    cold.perform_all()
    for _ in range(60):
        cold.engines["a/0"].requests += 1
        cold.pass_time(1.0)
    assert "a/0" in cold.engines


# Failures


def test_a_request_for_a_failed_llm_hears_when_it_is_expected_back(
    world: llm_world.LlmWorld,
) -> None:
    apply(world, llm_world.spec("a"))
    world.kill_engine("a/0")
    # The first loss of an engine that has served lets its requests wait.
    waiting = world.ask("a")
    world.tick(1.0)
    assert waiting not in world.answers
    world.failing_starts = {"a"}
    world.perform_all()
    assert retry_s(world, waiting) == 32.0
    world.tick(1.0)
    assert retry_s(world, world.ask("a")) == 31.0
    world.failing_starts = set()
    world.pass_time(2.0)
    assert isinstance(world.answers[world.ask("a")], commands.Admit)


def test_waiting_requests_are_turned_away_when_the_start_fails(cold: llm_world.LlmWorld) -> None:
    cold.failing_starts = {"a"}
    ticket = cold.ask("a")
    cold.perform_all()
    assert retry_s(cold, ticket) == 60.0
    assert "it can't be loaded" in refusal(cold, ticket).reason
    before = len(cold.log)
    for _ in range(100):
        cold.tick(10.0)
        cold.perform_all()
    # Nobody waits, and so nothing is started.
    assert replica_orders(cold, before) == []
    assert not cold.mesh.llms.llms["a"].replicas
    assert (cold.mesh.llms.llms["a"].state, cold.mesh.llms.llms["a"].reason) == (
        "failed",
        "it can't be loaded",
    )
    cold.failing_starts = set()
    cold.ask("a")
    cold.perform_all()
    assert (cold.mesh.llms.llms["a"].state, cold.mesh.llms.llms["a"].reason) == ("ready", "")


def test_a_stalled_engine_counts_as_lost(world: llm_world.LlmWorld) -> None:
    apply(world, llm_world.spec("a", stall_timeout_s=5.0))
    world.report(stalled_s=5.0)
    assert world.mesh.llms.llms["a"].state == "ready"
    world.report(stalled_s=6.0)
    assert world.mesh.llms.llms["a"].reason == "its requests got no token for 6 s"
    world.tick(1.0)
    assert replica_orders(world) == ["StartReplica a/0", "StartReplica a/0"]


def test_failures_are_forgotten_after_a_minute_of_service(world: llm_world.LlmWorld) -> None:
    world.failing_starts = {"a"}
    apply(world, llm_world.spec("a"))
    world.pass_time(0.5, step_s=0.5)
    world.failing_starts = set()
    world.pass_time(70.0)
    assert world.mesh.llms.llms["a"].replicas["a/0"].retry.failures == 0


# Changes


def test_settings_of_the_mesh_alone_change_without_a_restart(world: llm_world.LlmWorld) -> None:
    apply(world, llm_world.spec("a"))
    before = len(world.log)
    apply(world, llm_world.spec("a", idle_timeout_s=1.0, held=llm_spec.HoldLimits(1)))
    assert replica_orders(world, before) == []


def test_a_changed_engine_is_replaced_when_gateways_hold_its_requests(
    world: llm_world.LlmWorld,
) -> None:
    apply(world, llm_world.spec("a", tensor_parallel_size=4))
    before = len(world.log)
    world.apply_llms(llm_world.spec("a", tensor_parallel_size=3))
    ticket = world.ask("a")
    world.perform_all()
    assert replica_orders(world, before) == ["StopReplica a/0", "StartReplica a/1"]
    assert isinstance(world.answers[ticket], commands.Admit)


def test_several_replicas_are_replaced_one_at_a_time(world: llm_world.LlmWorld) -> None:
    two = {"replicas_min": 2, "replicas_max": 2}
    apply(world, llm_world.spec("a", **two))
    world.apply_llms(llm_world.spec("a", engine={"seed": 1}, **two))
    while any(world.lanes.values()):
        world.see_capacity()
        world.step(next(name for name, lane in world.lanes.items() if lane))
        assert route(world).members
    assert all(engine.spec.engine for engine in world.engines.values())
    assert len(world.engines) == 2


def test_a_removed_llm_is_forgotten_when_gateways_know(world: llm_world.LlmWorld) -> None:
    apply(world, llm_world.spec("a"))
    before = len(world.log)
    world.apply_llms()
    assert world.mesh.gateway_snapshot("n1").llms == ()
    assert replica_orders(world, before) == []
    world.perform_all()
    assert (replica_orders(world, before), world.mesh.llms.llms) == (["StopReplica a/0"], {})


def test_narrower_limits_turn_the_newest_requests_away(cold: llm_world.LlmWorld) -> None:
    tickets = [cold.ask("a") for _ in range(3)]
    cold.apply_llms(
        llm_world.spec(
            "a", replicas_min=0, idle_timeout_s=20.0, held=llm_spec.HoldLimits(2, 1000, 100.0)
        )
    )
    assert list(cold.answers) == tickets[2:]


# Numbers


def test_overload_starts_another_replica_and_quiet_stops_it(world: llm_world.LlmWorld) -> None:
    apply(world, llm_world.spec("a", replicas_max=3))
    world.engines["a/0"].waiting = world.engines["a/0"].running = 5
    world.pass_time(12.0)
    assert sorted(world.engines) == ["a/0", "a/1"]
    world.engines["a/0"].waiting = world.engines["a/0"].running = 0
    world.pass_time(130.0)
    assert sorted(world.engines) == ["a/0"]
    assert [member.worker_id for member in route(world).members] == ["a/0"]


# Beside pools


def test_pools_come_up_although_llms_do_not(world: llm_world.LlmWorld) -> None:
    world.failing_starts = {"a"}
    world.apply_llms(llm_world.spec("a"), llm_world.spec("b", tensor_parallel_size=99))
    world.perform_all()
    assert (world.mesh.workers.ready("default"), world.mesh.gateways.are_serving) == (
        ["default-0"],
        True,
    )


def test_a_drain_turns_requests_away_and_stops_engines_after_gateways(
    world: llm_world.LlmWorld,
) -> None:
    apply(world, llm_world.spec("a"), llm_world.spec("b", replicas_min=0, device="cpu"))
    ticket = world.ask("b")
    before = len(world.log)
    world.feed(events.DrainRequested())
    assert isinstance(world.answers[ticket], commands.TurnAway)
    assert replica_orders(world, before) == ["StopReplica b/0"]
    world.perform_all()
    assert (world.engines, world.mesh.is_drained) == ({}, True)
