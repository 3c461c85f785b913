from __future__ import annotations

import pytest

from meshserve.core.llm import hold_admission, llm_fleet
from meshserve.core.llm.replica_lifecycle import ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import commands, events, llm_spec, model
from tests.core import llm_world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


@pytest.fixture
def fleet():
    made = llm_fleet.Fleet(gateways.Gateways())
    made.want([llm_world.spec("a", aliases=("also",), held=llm_spec.HoldLimits(2, 100, 10.0))])
    return made


def arrive(fleet, ticket, name="a", size_bytes=10, now_s=0.0):
    return list(hold_admission.arrive(fleet, events.RequestHeld(ticket, name, size_bytes), now_s))


def follow(fleet, now_s=0.0):
    return list(hold_admission.follow(fleet, fleet.llms["a"], now_s))


def put(fleet, state, losses=0):
    each = fleet.llms["a"]
    replica = fleet.add(each, "a/0", each.spec)
    replica.state, replica.endpoint, replica.reason, replica.trouble.reason = (
        state,
        ENDPOINT,
        "broken",
        "broken",
    )
    replica.trouble.losses = losses
    each.route = each.wanted_route()
    return replica


def test_a_name_that_nobody_serves_is_told_at_once(fleet):
    assert arrive(fleet, "t", "z") == [commands.TurnAway("t", "no model 'z' is served", 1.0)]


def test_an_alias_waits_like_the_name(fleet):
    assert arrive(fleet, "t", "also") == []
    assert "t" in fleet.llms["a"].held


def test_what_can_be_served_goes_on_however_full_the_queue_is(fleet):
    put(fleet, ReplicaPhase.READY)
    assert arrive(fleet, "t", size_bytes=999) == [commands.Admit("t")]


def test_over_a_bound_the_expected_wait_is_told(fleet):
    assert arrive(fleet, "t", size_bytes=101)[0].retry_after_s == 60.0


def test_while_it_is_tried_again_nobody_waits(fleet):
    put(fleet, ReplicaPhase.STARTING, losses=1)
    told = arrive(fleet, "t")[0]
    assert (told.reason, told.retry_after_s) == ("model 'a' is not ready: broken", 60.0)
    assert fleet.llms["a"].turned_away == 1


def test_those_that_wait_go_on_in_order_when_it_serves(fleet):
    arrive(fleet, "first")
    arrive(fleet, "second")
    assert follow(fleet) == []
    put(fleet, ReplicaPhase.READY)
    assert follow(fleet) == [commands.Admit("first"), commands.Admit("second")]


def test_those_that_wait_when_it_fails_are_turned_away(fleet):
    arrive(fleet, "t")
    put(fleet, ReplicaPhase.FAILED)
    assert [command.reason for command in follow(fleet)] == ["model 'a' is not ready: broken"]


def test_nobody_waits_too_long_or_for_what_is_not_served_any_more(fleet):
    arrive(fleet, "first", now_s=0.0)
    arrive(fleet, "second", now_s=5.0)
    assert [command.ticket for command in follow(fleet, 10.0)] == ["first"]
    fleet.want([])
    assert [command.ticket for command in follow(fleet, 10.0)] == ["second"]
