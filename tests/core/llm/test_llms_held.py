"""How held requests are answered, by an `Llms` without a mesh around it."""

from __future__ import annotations

import pytest

from meshserve.core.llm import llms
from meshserve.core.llm.replica_state import ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import commands, events, llm_spec, model
from tests.core import llm_world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)
SPEC = llm_world.spec("a", aliases=("also",), held=llm_spec.HoldLimits(2, 100, 10.0))


class Held:
    """An `Llms` that knows one LLM on nodes without GPUs, so that only a test puts replicas in."""

    def __init__(self):
        self.out = []
        self.llms = llms.Llms(gateways.Gateways([]), self.out)
        self.reconcile()

    @property
    def llm(self):
        return self.llms.llms["a"]

    def drain(self):
        answers = [
            command
            for command in self.out
            if isinstance(command, commands.Admit | commands.TurnAway)
        ]
        self.out.clear()
        return answers

    def arrive(self, ticket, name="a", size_bytes=10, now_s=0.0):
        self.llms.handle(events.RequestHeld(ticket, name, size_bytes), now_s)
        return self.drain()

    def reconcile(self, now_s=0.0, wanted=(SPEC,)):
        self.llms.reconcile(wanted, now_s)
        return self.drain()

    def put(self, phase, failures=0):
        self.llm.replicas.clear()
        replica = self.llms.fleet.add_replica(self.llm, "a/0", self.llm.spec)
        replica.phase, replica.endpoint = phase, ENDPOINT
        replica.reason = replica.retry.reason = "broken"
        replica.retry.failures, replica.retry.retry_at_s = failures, 5.0 * failures
        self.llm.route = self.llm.desired_route()


@pytest.fixture
def held():
    return Held()


def test_an_unknown_name_is_turned_away_at_once(held):
    assert held.arrive("t", "z") == [commands.TurnAway("t", "no model 'z' is served", 1.0)]


def test_a_request_by_an_alias_waits_too(held):
    assert held.arrive("t", "also") == []
    assert "t" in held.llm.held


def test_a_request_that_can_be_served_is_admitted_however_big_it_is(held):
    held.put(ReplicaPhase.READY)
    assert held.arrive("t", size_bytes=999) == [commands.Admit("t")]


def test_a_request_over_a_bound_hears_the_expected_wait(held):
    assert held.arrive("t", size_bytes=101)[0].retry_after_s == 60.0


def test_no_request_waits_while_a_failed_replica_is_tried_again(held):
    held.put(ReplicaPhase.STARTING, failures=1)
    (answer,) = held.arrive("t")
    assert (answer.reason, answer.retry_after_s) == ("model 'a' is not ready: broken", 60.0)
    assert held.llm.turned_away == 1


def test_waiting_requests_are_admitted_in_order_when_a_replica_serves(held):
    held.arrive("first")
    held.arrive("second")
    assert held.reconcile() == []
    held.put(ReplicaPhase.READY)
    assert held.reconcile() == [commands.Admit("first"), commands.Admit("second")]


def test_waiting_requests_are_turned_away_when_all_replicas_have_failed(held):
    held.arrive("t")
    held.put(ReplicaPhase.FAILED, failures=1)
    assert [answer.reason for answer in held.reconcile()] == ["model 'a' is not ready: broken"]


def test_requests_are_turned_away_when_overdue_and_when_their_llm_is_removed(held):
    held.arrive("first", now_s=0.0)
    held.arrive("second", now_s=5.0)
    assert [answer.ticket for answer in held.reconcile(10.0)] == ["first"]
    assert [answer.ticket for answer in held.reconcile(10.0, wanted=())] == ["second"]


def test_a_request_whose_client_left_is_not_answered(held):
    held.arrive("t")
    held.llms.handle(events.HeldRequestLeft("t"), 1.0)
    held.put(ReplicaPhase.READY)
    assert held.reconcile() == []
