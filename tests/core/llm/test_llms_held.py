"""How held requests are answered, by an `Llms` without a mesh around it."""

from __future__ import annotations

import pytest

from meshserve.core.llm import llm_state, llms
from meshserve.core.llm.replica_state import ReplicaPhase
from meshserve.core.processes import gateways
from meshserve.core.values import commands, llm_events, llm_spec, model
from tests.core import llm_world

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)
SPEC = llm_world.spec("a", aliases=("also",), held=llm_spec.HoldLimits(2, 100, 10.0))


class Held:
    """An `Llms` that knows one LLM on nodes without GPUs, so that only a test puts replicas in."""

    def __init__(self) -> None:
        self.out: commands.Outbox = []
        self.llms = llms.Llms(gateways.Gateways([]), self.out)
        self.reconcile()

    @property
    def llm(self) -> llm_state.LlmRecord:
        return self.llms.llms["a"]

    def drain(self) -> list[commands.HeldCommand]:
        answers = [
            command
            for command in self.out
            if isinstance(command, commands.Admit | commands.TurnAway)
        ]
        self.out.clear()
        return answers

    def arrive(
        self, ticket: str, name: str = "a", size_bytes: int = 10, now_s: float = 0.0
    ) -> list[commands.HeldCommand]:
        self.llms.handle(llm_events.RequestHeld(ticket, name, size_bytes), now_s)
        return self.drain()

    def reconcile(
        self, now_s: float = 0.0, wanted: tuple[llm_spec.LlmSpec, ...] = (SPEC,)
    ) -> list[commands.HeldCommand]:
        self.llms.reconcile(wanted, now_s)
        return self.drain()

    def put(self, phase: ReplicaPhase, failures: int = 0) -> None:
        self.llm.replicas.clear()
        replica = self.llms.fleet.add_replica(self.llm, "a/0", self.llm.spec)
        replica.phase, replica.endpoint = phase, ENDPOINT
        replica.reason = replica.retry.reason = "broken"
        replica.retry.failures, replica.retry.retry_at_s = failures, 5.0 * failures
        self.llm.route = self.llm.desired_route()


def refusal(answers: list[commands.HeldCommand]) -> commands.TurnAway:
    """Return the only answer, which must be a TurnAway."""
    (answer,) = answers
    assert isinstance(answer, commands.TurnAway)
    return answer


@pytest.fixture
def held() -> Held:
    return Held()


def test_an_unknown_name_is_turned_away_at_once(held: Held) -> None:
    assert held.arrive("t", "z") == [commands.TurnAway("t", "no model 'z' is served", 1.0)]


def test_a_request_by_an_alias_waits_too(held: Held) -> None:
    assert held.arrive("t", "also") == []
    assert "t" in held.llm.held


def test_a_request_that_can_be_served_is_admitted_however_big_it_is(held: Held) -> None:
    held.put(ReplicaPhase.READY)
    assert held.arrive("t", size_bytes=999) == [commands.Admit("t")]


def test_a_request_over_a_bound_hears_the_expected_wait(held: Held) -> None:
    assert refusal(held.arrive("t", size_bytes=101)).retry_after_s == 60.0


def test_no_request_waits_while_a_failed_replica_is_tried_again(held: Held) -> None:
    held.put(ReplicaPhase.STARTING, failures=1)
    answer = refusal(held.arrive("t"))
    assert (answer.reason, answer.retry_after_s) == ("model 'a' is not ready: broken", 60.0)
    assert held.llm.turned_away == 1


def test_no_longer_wait_is_told_than_openais_clients_obey(held: Held) -> None:
    held.put(ReplicaPhase.FAILED, failures=120)
    assert refusal(held.arrive("t")).retry_after_s == llms.RETRY_S_MAX <= 120


def test_waiting_requests_are_admitted_in_order_when_a_replica_serves(held: Held) -> None:
    held.arrive("first")
    held.arrive("second")
    assert held.reconcile() == []
    held.put(ReplicaPhase.READY)
    assert held.reconcile() == [commands.Admit("first"), commands.Admit("second")]


def test_waiting_requests_are_turned_away_when_all_replicas_have_failed(held: Held) -> None:
    held.arrive("t")
    held.put(ReplicaPhase.FAILED, failures=1)
    assert refusal(held.reconcile()).reason == "model 'a' is not ready: broken"


def test_requests_are_turned_away_when_overdue_and_when_their_llm_is_removed(held: Held) -> None:
    held.arrive("first", now_s=0.0)
    held.arrive("second", now_s=5.0)
    assert [answer.ticket for answer in held.reconcile(10.0)] == ["first"]
    assert [answer.ticket for answer in held.reconcile(10.0, wanted=())] == ["second"]


def test_a_request_whose_client_left_is_not_answered(held: Held) -> None:
    held.arrive("t")
    held.llms.handle(llm_events.HeldRequestLeft("t"), 1.0)
    held.put(ReplicaPhase.READY)
    assert held.reconcile() == []
