from __future__ import annotations

import asyncio

import pytest

from meshserve.control import effects
from meshserve.core.values import (
    catalog,
    catalog_sync,
    commands,
    desired,
    events,
    llm_spec,
    model,
    snapshots,
)
from meshserve.testing import fake_cluster, manual_clock
from tests import support
from tests.core import world

W = "default-0"
START = commands.StartWorker(W, desired.WorkerSettings())
A = model.ModelId("a")


class Desk:
    def __init__(self):
        self.events = []

    def post(self, event):
        self.events.append(event)

    def gateway_snapshot(self, node):
        return snapshots.GatewaySnapshot(
            f":{len(self.events)}", node, {}, revision=len(self.events)
        )


class Stage:
    def __init__(self):
        self.cluster, self.clock, self.desk = (
            fake_cluster.FakeCluster(),
            manual_clock.ManualClock(),
            Desk(),
        )
        self.hands = effects.Effects(self.cluster, self.clock, self.desk)

    async def perform(self, *asked):
        for command in asked:
            self.hands.perform(command)
        await self.hands.wait_until_settled()
        await self.clock.advance(0)
        return self.desk.events

    def kinds(self):
        return [type(event).__name__ for event in self.desk.events]


@pytest.fixture
async def stage():
    made = Stage()
    yield made
    made.hands.close()


def sent(*names):
    return [
        commands.SendChanges(W, step)
        for step in catalog_sync.full_steps(
            catalog_sync.split_changes([catalog.ModelDeclared(world.spec(name)) for name in names]),
            0,
        )
    ]


async def test_a_worker_is_started_told_and_pinned_in_order(stage):
    await stage.perform(START, *sent("a"), commands.Pin(W, A), commands.EnsureLoaded(W, A, 1.0))
    assert stage.kinds() == ["WorkerStarted", "WorkerSynced", "CopyEnsured"]
    assert stage.cluster.workers[W].pins == {A}
    assert stage.desk.events[-1] == events.CopyEnsured(W, A)
    await stage.perform(commands.Unpin(W, A))
    assert stage.cluster.workers[W].pins == set()


async def test_a_start_that_fails_is_a_loss(stage):
    stage.cluster.failing_starts[W] = 1
    assert await stage.perform(START) == [events.WorkerLost(W, f"{W} can't be started")]


async def test_a_load_that_fails_says_why(stage):
    stage.cluster.failing_loads["a"] = "it is corrupt"
    await stage.perform(START, *sent("a"), commands.EnsureLoaded(W, A, 1.0))
    assert stage.desk.events[-1] == events.CopyEnsured(W, A, "it is corrupt")


async def test_a_gap_is_told(stage):
    await stage.perform(START, *sent("a"), commands.SendChanges(W, catalog_sync.SyncStep(5, ())))
    assert stage.desk.events[-1] == events.SyncFailed(W, 5)


async def test_a_worker_that_does_not_answer_is_told_everything_a_little_later(stage):
    await stage.perform(*sent("a"))
    assert stage.desk.events == []
    await stage.clock.advance(effects.AGAIN_AFTER_S)
    assert stage.desk.events == [events.SyncFailed(W, 1)]


async def test_what_was_to_be_done_with_a_lost_worker_is_forgotten(stage):
    await stage.perform(*sent("a"))
    stage.hands.perform(commands.Pin(W, A))
    stage.hands.forget_worker(W)
    await stage.clock.advance(effects.AGAIN_AFTER_S)
    assert stage.desk.events == []


async def test_a_pin_on_a_worker_that_is_gone_is_no_event(stage, caplog):
    assert await stage.perform(commands.Pin(W, A)) == []
    assert "pinning of a:1" in caplog.text


async def test_a_worker_is_stopped_once_gateways_know(stage):
    await stage.perform(commands.StartGateway("n1"), START)
    await stage.perform(commands.ConfigureGateway("n1"), commands.StopWorker(W))
    assert stage.desk.events[-1] == events.WorkerStopped(W)
    assert W not in stage.cluster.workers


async def test_a_replica_that_starts_slowly_holds_up_nobody(stage):
    gate = stage.cluster.slow["l/0"] = asyncio.Event()
    await stage.perform(
        commands.StartReplica("l/0", llm_spec.LlmSpec("l", "/l"), llm_spec.ReplicaPlan()), START
    )
    assert stage.kinds() == ["WorkerStarted"]
    gate.set()
    await support.wait_until_async(lambda: stage.kinds() == ["WorkerStarted", "ReplicaReady"])


async def test_a_gateway_is_started_configured_and_stopped(stage):
    await stage.perform(commands.StartGateway("n1"))
    assert stage.kinds() == ["GatewayReported", "GatewayConfigured"]
    await stage.perform(commands.ConfigureGateway("n1"))
    assert stage.cluster.gateways["n1"].listen == ":2"
    assert stage.desk.events[-1] == events.GatewayConfigured("n1", 2)
    await stage.perform(commands.StopGateway("n1"))
    assert stage.desk.events[-1] == events.GatewayStopped("n1")


async def test_a_gateway_takes_many_changes_at_once(stage):
    await stage.perform(commands.StartGateway("n1"))
    for _ in range(5):
        stage.desk.post(events.Ticked())
        stage.hands.perform(commands.ConfigureGateway("n1"))
    await stage.hands.wait_until_settled()
    assert stage.cluster.gateways["n1"].listen == ":7"


async def test_a_gateway_that_refuses_a_snapshot_gets_it_again(stage):
    await stage.perform(commands.StartGateway("n1"))
    stage.cluster.failing_configures["n1"] = 1
    await stage.perform(commands.ConfigureGateway("n1"))
    assert stage.cluster.gateways["n1"].listen == ":0"
    assert stage.desk.events[-1] == events.GatewayConfigured("n1", 0)
    await stage.clock.advance(effects.AGAIN_AFTER_S)
    await stage.hands.wait_until_settled()
    assert stage.cluster.gateways["n1"].listen == ":2"
    assert stage.desk.events[-1] == events.GatewayConfigured("n1", 2)


async def test_a_gateway_that_is_gone_is_not_configured(stage):
    assert await stage.perform(commands.ConfigureGateway("n1")) == []
