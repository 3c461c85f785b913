from __future__ import annotations

import pytest

from meshserve.core.mesh import mesh
from meshserve.core.values import commands, events, llm_spec, model
from tests.core import llm_world, world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


@pytest.fixture
def made():
    fresh = llm_world.LlmWorld()
    fresh.settle()
    yield fresh
    fresh.check()


def apply(made, *specs):
    made.apply_llms(*specs)
    made.perform_all()


def orders(made, before=0):
    """What was ordered of replicas since, and of gateways, in order."""
    kinds = (
        commands.StartReplica,
        commands.StopReplica,
        commands.SleepReplica,
        commands.WakeReplica,
        commands.ConfigureGateway,
    )
    return [
        f"{type(each).__name__} {getattr(each, 'replica_id', each)}"
        for each in made.log[before:]
        if isinstance(each, kinds)
    ]


def replica_orders(made, before=0):
    return [order for order in orders(made, before) if "Gateway" not in order]


def retry_s(made, ticket):
    return made.answers[ticket].retry_after_s


def route(made, name="a"):
    return next(each for each in made.mesh.gateway_snapshot("n1").llms if each.name == name)


# Starting


def test_an_llm_is_started_and_gateways_hear_of_it(made):
    made.apply_llms(llm_world.spec("a", tensor_parallel_size=2))
    start = next(command for command in made.log if isinstance(command, commands.StartReplica))
    assert (start.replica_id, start.plan) == ("a/0", llm_spec.ReplicaPlan((2,), "mp", "n1"))
    assert route(made).is_held
    made.perform_all()
    assert [member.worker_id for member in route(made).members] == ["a/0"]
    assert not route(made).is_held


def test_an_llm_without_room_waits_and_says_why_and_holds_nobody_up(made):
    apply(
        made,
        llm_world.spec("a", tensor_parallel_size=3),
        llm_world.spec("b", tensor_parallel_size=2),
        llm_world.spec("c"),
    )
    llms = made.mesh.llms.llms
    assert (llms["b"].state, llms["b"].reason) == (
        "starting",
        "it needs 2 GPUs and 0 are free on n1; a/0 holds 3; c/0 holds 1",
    )
    assert llms["c"].state == "ready"
    made.apply_llms(llm_world.spec("b", tensor_parallel_size=2), llm_world.spec("c"))
    made.perform_all()
    assert llms["b"].state == "ready"


def test_an_engine_that_fails_is_tried_again_ever_later_and_says_why(made):
    made.failing_starts = {"a"}
    apply(made, llm_world.spec("a"))
    made.pass_time(20.0)
    assert made.mesh.llms.llms["a"].reason == "it can't be loaded"
    assert replica_orders(made) == ["StartReplica a/0"] * 5
    made.failing_starts = set()
    made.pass_time(20.0)
    assert made.mesh.llms.llms["a"].state == "ready"


def test_news_of_a_replica_that_nobody_knows_is_answered_by_stopping_it(made):
    made.feed(events.ReplicaReady("z/0", ENDPOINT, 1, 1.0))
    assert replica_orders(made) == ["StopReplica z/0"]
    for late in (
        events.ReplicaStopped("z/0"),
        events.ReplicaSlept("z/0"),
        events.ReplicaWoken("z/0", 1.0),
        events.ReplicaLost("z/0", "gone"),
    ):
        made.feed(late)
    made.feed(events.ReplicaReported(llm_spec.LlmReport("z/0")))
    assert len(replica_orders(made)) == 1


def test_news_of_an_earlier_process_is_nothing(made):
    apply(made, llm_world.spec("a"))
    made.feed(events.ReplicaLost("a/0", "gone", 999))
    assert made.mesh.llms.llms["a"].state == "ready"


# From zero


@pytest.fixture
def cold(made):
    apply(
        made,
        llm_world.spec(
            "a", replicas_min=0, idle_timeout_s=20.0, held=llm_spec.HoldLimits(50, 1000, 100.0)
        ),
    )
    return made


def test_fifty_first_requests_make_one_start_and_are_let_through_in_order(cold):
    tickets = [cold.ask("a") for _ in range(50)]
    assert replica_orders(cold) == ["StartReplica a/0"]
    cold.perform_all()
    assert [each.ticket for each in cold.log if isinstance(each, commands.Admit)] == tickets


def test_nobody_is_let_through_before_gateways_know(cold):
    cold.ask("a")
    cold.step("replica a/0")
    assert cold.answers == {}
    cold.step("gateway n1")
    assert isinstance(cold.answers["t1"], commands.Admit)


def test_over_the_limit_the_expected_rest_of_the_start_is_told(cold):
    for _ in range(50):
        cold.ask("a")
    cold.tick(15.0)
    assert retry_s(cold, cold.ask("a")) == 45.0


def test_whoever_waited_too_long_is_turned_away(cold):
    first = cold.ask("a")
    cold.tick(99.0)
    assert cold.answers == {}
    cold.tick(1.0)
    assert isinstance(cold.answers[first], commands.TurnAway)


def test_whoever_left_is_not_answered(cold):
    ticket = cold.ask("a")
    cold.leave(ticket)
    cold.perform_all()
    assert cold.answers == {}


def test_a_start_that_nobody_waits_for_any_more_is_given_up(cold):
    cold.leave(cold.ask("a"))
    cold.tick(20.0)
    assert replica_orders(cold) == ["StartReplica a/0", "StopReplica a/0"]


def test_names_that_nobody_serves_are_turned_away_at_once(cold):
    assert isinstance(cold.answers[cold.ask("nobody")], commands.TurnAway)


def test_an_idle_engine_goes_only_when_gateways_hold(cold):
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


def test_a_request_that_comes_before_the_stop_is_ordered_keeps_the_engine(cold):
    cold.ask("a")
    cold.pass_time(19.0)
    before = len(cold.log)
    cold.tick(1.0)
    ticket = cold.ask("a")
    cold.perform_all()
    assert replica_orders(cold, before) == []
    assert isinstance(cold.answers[ticket], commands.Admit)


def test_a_request_that_comes_after_the_stop_is_ordered_starts_another(cold):
    cold.ask("a")
    cold.pass_time(19.0)
    cold.tick(1.0)
    cold.step("gateway n1")
    ticket = cold.ask("a")
    assert replica_orders(cold)[-2:] == ["StopReplica a/0", "StartReplica a/1"]
    cold.perform_all()
    assert isinstance(cold.answers[ticket], commands.Admit)


def test_an_engine_in_use_does_not_go(cold):
    cold.ask("a")
    cold.perform_all()
    cold.engines["a/0"].running = 1
    cold.pass_time(100.0)
    cold.engines["a/0"].running = 0
    cold.pass_time(10.0)
    assert "a/0" in cold.engines
    cold.pass_time(11.0)
    assert cold.engines == {}


def test_requests_between_two_reports_count_as_use(cold):
    cold.ask("a")
    cold.perform_all()
    for _ in range(60):
        cold.engines["a/0"].requests += 1
        cold.pass_time(1.0)
    assert "a/0" in cold.engines


# Failures


def test_callers_of_a_failed_llm_hear_when_it_is_expected_back(made):
    apply(made, llm_world.spec("a"))
    made.kill_engine("a/0")
    assert retry_s(made, made.ask("a")) == 31.0
    made.tick(1.0)
    assert retry_s(made, made.ask("a")) == 30.0
    assert route(made).is_held
    made.perform_all()
    assert isinstance(made.answers[made.ask("a")], commands.Admit)


def test_those_that_wait_are_turned_away_when_the_start_fails(cold):
    cold.failing_starts = {"a"}
    ticket = cold.ask("a")
    cold.perform_all()
    assert retry_s(cold, ticket) == 61.0
    assert "it can't be loaded" in cold.answers[ticket].reason
    for _ in range(100):
        cold.tick(10.0)
        cold.perform_all()
    assert not cold.mesh.llms.llms["a"].replicas
    assert (cold.mesh.llms.llms["a"].state, cold.mesh.llms.llms["a"].reason) == (
        "failed",
        "it can't be loaded",
    )
    cold.failing_starts = set()
    cold.ask("a")
    cold.perform_all()
    assert (cold.mesh.llms.llms["a"].state, cold.mesh.llms.llms["a"].reason) == ("ready", "")


def test_an_engine_that_stalls_counts_as_lost(made):
    apply(made, llm_world.spec("a", stall_timeout_s=5.0))
    made.report(stalled_s=5.0)
    assert made.mesh.llms.llms["a"].state == "ready"
    made.report(stalled_s=6.0)
    assert made.mesh.llms.llms["a"].reason == "its requests got no token for 6 s"
    made.tick(1.0)
    assert replica_orders(made) == ["StartReplica a/0", "StartReplica a/0"]


def test_an_engine_that_is_up_for_long_has_no_past(made):
    made.failing_starts = {"a"}
    apply(made, llm_world.spec("a"))
    made.pass_time(5.0)
    made.failing_starts = set()
    made.pass_time(70.0)
    assert made.mesh.llms.fleet.replica("a/0").trouble.losses == 0


# Changes


def test_what_the_engine_does_not_see_changes_without_a_restart(made):
    apply(made, llm_world.spec("a"))
    before = len(made.log)
    apply(made, llm_world.spec("a", idle_timeout_s=1.0, held=llm_spec.HoldLimits(1)))
    assert replica_orders(made, before) == []


def test_a_changed_engine_is_replaced_when_gateways_hold(made):
    apply(made, llm_world.spec("a", tensor_parallel_size=4))
    before = len(made.log)
    made.apply_llms(llm_world.spec("a", tensor_parallel_size=3))
    ticket = made.ask("a")
    made.perform_all()
    assert replica_orders(made, before) == ["StopReplica a/0", "StartReplica a/1"]
    assert isinstance(made.answers[ticket], commands.Admit)


def test_of_several_replicas_one_at_a_time_is_replaced(made):
    two = {"replicas_min": 2, "replicas_max": 2}
    apply(made, llm_world.spec("a", **two))
    made.apply_llms(llm_world.spec("a", engine={"seed": 1}, **two))
    while any(made.lanes.values()):
        made.see_room()
        made.step(next(name for name, lane in made.lanes.items() if lane))
        assert route(made).members
    assert all(engine.spec.engine for engine in made.engines.values())
    assert len(made.engines) == 2


def test_a_removed_llm_is_forgotten_when_gateways_know(made):
    apply(made, llm_world.spec("a"))
    before = len(made.log)
    made.apply_llms()
    assert made.mesh.gateway_snapshot("n1").llms == ()
    assert replica_orders(made, before) == []
    made.perform_all()
    assert (replica_orders(made, before), made.mesh.llms.llms) == (["StopReplica a/0"], {})


def test_those_that_wait_for_a_removed_llm_are_turned_away(cold):
    ticket = cold.ask("a")
    cold.apply_llms()
    assert isinstance(cold.answers[ticket], commands.TurnAway)


def test_narrower_limits_hold_for_those_that_wait(cold):
    tickets = [cold.ask("a") for _ in range(3)]
    cold.apply_llms(
        llm_world.spec(
            "a", replicas_min=0, idle_timeout_s=20.0, held=llm_spec.HoldLimits(2, 1000, 100.0)
        )
    )
    assert list(cold.answers) == tickets[2:]


# Numbers


def test_requests_that_wait_inside_engines_bring_another_and_quiet_lets_it_go(made):
    apply(made, llm_world.spec("a", replicas_max=3))
    made.engines["a/0"].waiting = made.engines["a/0"].running = 5
    made.pass_time(12.0)
    assert sorted(made.engines) == ["a/0", "a/1"]
    made.engines["a/0"].waiting = made.engines["a/0"].running = 0
    made.pass_time(130.0)
    assert sorted(made.engines) == ["a/0"]
    assert [member.worker_id for member in route(made).members] == ["a/0"]


# Beginning and ending


def test_replicas_that_run_already_are_taken_over():
    fresh, specs = mesh.Mesh(), (llm_world.spec("a"), llm_world.spec("b"), llm_world.spec("gone"))
    living = tuple(
        llm_spec.LivingReplica(f"{each.name}/3", each, ENDPOINT, 7, is_asleep=each.name == "b")
        for each in specs
    )
    wanted = world.desired.Desired(pools=(), llms=specs[:2])
    asked = fresh.handle(events.Restored((wanted,), replicas=living), 0.0)
    assert asked == [commands.WakeReplica("b/3")]
    assert [(each.name, each.is_held) for each in fresh.gateway_snapshot("n1").llms] == [
        ("a", False),
        ("b", True),
    ]
    assert fresh.handle(events.Ticked(), 0.0) == [commands.StopReplica("gone/3")]
    fresh.check()


def test_who_is_awake_when_the_controller_begins_has_its_groups_turn():
    fresh, specs = mesh.Mesh(), tuple(llm_world.spec(name, share="g") for name in "ab")
    living = tuple(
        llm_spec.LivingReplica(f"{each.name}/0", each, ENDPOINT, 7, is_asleep=each.name == "a")
        for each in specs
    )
    assert (
        fresh.handle(
            events.Restored((world.desired.Desired(pools=(), llms=specs),), replicas=living), 0.0
        )
        == []
    )
    assert (fresh.llms.fleet.turns, fresh.llms.llms["a"].state) == ({"g": "b"}, "asleep")
    fresh.check()


def test_pools_come_up_whatever_becomes_of_llms(made):
    made.failing_starts = {"a"}
    made.apply_llms(llm_world.spec("a"), llm_world.spec("b", tensor_parallel_size=99))
    made.perform_all()
    assert (made.mesh.workers.ready("default"), made.mesh.gateways.are_serving) == (
        ["default-0"],
        True,
    )


def test_engines_end_after_the_gateways_before_them(made):
    apply(made, llm_world.spec("a"), llm_world.spec("b", replicas_min=0, device="cpu"))
    ticket = made.ask("b")
    before = len(made.log)
    made.feed(events.DrainRequested())
    assert isinstance(made.answers[ticket], commands.TurnAway)
    assert replica_orders(made, before) == ["StopReplica b/0"]
    made.perform_all()
    assert (made.engines, made.mesh.is_drained) == ({}, True)
