from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve import errors
from meshserve.control import effects
from meshserve.core.values import (
    catalog,
    catalog_sync,
    commands,
    desired,
    events,
    gateway_events,
    llm_events,
    llm_spec,
    model,
    reports,
    snapshots,
)
from meshserve.testing import fake_cluster, manual_clock
from tests import support
from tests.core import world

W = "default-0"
START = commands.StartWorker(W, desired.WorkerSettings())
A = model.ModelId("a")
R = "l/0"
START_REPLICA = commands.StartReplica(
    R, llm_spec.LlmSpec("l", "/l"), llm_spec.ReplicaPlan((1,), node="n1")
)


class Host:
    def __init__(self) -> None:
        self.events: list[Any] = []  # tests know which events come

    def post(self, event: events.Event) -> None:
        self.events.append(event)

    def gateway_snapshot(self, node: str) -> snapshots.GatewaySnapshot:
        return snapshots.GatewaySnapshot(
            f":{len(self.events)}", node, {}, revision=len(self.events)
        )


class Stage:
    def __init__(self) -> None:
        self.cluster, self.clock, self.host = (
            fake_cluster.FakeCluster(),
            manual_clock.ManualClock(),
            Host(),
        )
        self.effects = effects.Effects(
            self.cluster, self.clock, self.host.post, self.host.gateway_snapshot
        )

    async def perform(self, *ordered: effects.ProcessCommand) -> list[Any]:
        for command in ordered:
            self.effects.perform(command)
        await self.effects.wait_until_settled("worker", "gateway")
        await self.clock.advance(0)
        return self.host.events

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.host.events]

    async def order(self, *ordered: effects.ProcessCommand, events_: int = 1) -> list[Any]:
        """Order without waiting for the queues, and return the events once `events_` have come."""
        for command in ordered:
            self.effects.perform(command)
        return await self.until(events_)

    async def until(self, count: int) -> list[Any]:
        await support.wait_until_async(
            lambda: len(self.host.events) >= count, what=f"{count} events"
        )
        return self.host.events


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    new_stage = Stage()
    yield new_stage
    new_stage.effects.close()


def sent(*names: str) -> list[commands.SendChanges]:
    return [
        commands.SendChanges(W, step)
        for step in catalog_sync.full_steps(
            catalog_sync.split_changes([catalog.ModelDeclared(world.spec(name)) for name in names]),
            0,
        )
    ]


async def test_a_worker_is_started_synced_and_pinned_in_order(stage: Stage) -> None:
    await stage.perform(START, *sent("a"), commands.Pin(W, A), commands.EnsureLoaded(W, A, 1.0))
    assert stage.kinds() == ["WorkerStarted", "WorkerSynced", "CopyEnsured"]
    assert stage.cluster.workers[W].pins == {A}
    copy = reports.CopyReport(A, "ready", "", fake_cluster.SIZE, pinned=True)
    assert stage.host.events[-1] == events.CopyEnsured(W, A, copy=copy)
    await stage.perform(commands.Unpin(W, A))
    assert stage.cluster.workers[W].pins == set()


async def test_a_start_that_fails_is_a_loss(stage: Stage) -> None:
    stage.cluster.failing_starts[W] = 1
    assert await stage.perform(START) == [events.WorkerLost(W, f"{W} can't be started")]


async def test_a_load_that_fails_says_why(stage: Stage) -> None:
    stage.cluster.failing_loads["a"] = "it is corrupt"
    await stage.perform(START, *sent("a"), commands.EnsureLoaded(W, A, 1.0, "t"))
    ended = stage.host.events[-1]
    assert (type(ended.error), ended.failure) == (errors.LoadFailed, "it is corrupt")
    assert (ended.copy.state, ended.ticket) == ("failed", "t")


async def test_an_unload_says_what_is_left(stage: Stage) -> None:
    await stage.perform(START, *sent("a"), commands.EnsureLoaded(W, A, 1.0))
    await stage.perform(commands.Unload(W, A, "t"))
    assert stage.host.events[-1] == events.CopyUnloaded(W, A, ticket="t")


async def test_an_unload_on_a_worker_that_is_gone_fails(stage: Stage) -> None:
    await stage.perform(commands.Unload(W, A, "t"))
    (ended,) = stage.host.events
    assert (type(ended.error), ended.ticket) == (errors.Unavailable, "t")


async def test_a_missed_step_fails_the_sync(stage: Stage) -> None:
    await stage.perform(START, *sent("a"), commands.SendChanges(W, catalog_sync.SyncStep(5, ())))
    assert stage.host.events[-1] == events.SyncFailed(W, 5)


async def test_a_worker_that_does_not_answer_fails_the_sync_later(stage: Stage) -> None:
    await stage.perform(*sent("a"))
    assert stage.host.events == []
    await stage.clock.advance(effects.RETRY_S)
    assert stage.host.events == [events.SyncFailed(W, 1)]


async def test_commands_for_a_lost_worker_are_dropped(stage: Stage) -> None:
    await stage.perform(*sent("a"))
    stage.effects.perform(commands.Pin(W, A))
    stage.effects.perform(commands.AbandonWorker(W))
    await stage.clock.advance(effects.RETRY_S)
    assert stage.host.events == []


async def test_a_pin_on_a_worker_that_is_gone_is_no_event(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    assert await stage.perform(commands.Pin(W, A)) == []
    assert "pinning of a:1" in caplog.text


async def test_a_worker_is_stopped_once_gateways_know(stage: Stage) -> None:
    await stage.perform(commands.StartGateway("n1"), START)
    await stage.perform(commands.ConfigureGateway("n1"), commands.StopWorker(W))
    assert stage.host.events[-1] == events.WorkerStopped(W)
    assert W not in stage.cluster.workers


async def test_a_slow_replica_holds_up_no_worker(stage: Stage) -> None:
    gate = stage.cluster.slow["l/0"] = asyncio.Event()
    await stage.perform(
        commands.StartReplica("l/0", llm_spec.LlmSpec("l", "/l"), llm_spec.ReplicaPlan()), START
    )
    assert stage.kinds() == ["WorkerStarted"]
    gate.set()
    await support.wait_until_async(lambda: stage.kinds() == ["WorkerStarted", "ReplicaReady"])


async def test_a_gateway_is_started_configured_and_stopped(stage: Stage) -> None:
    await stage.perform(commands.StartGateway("n1"))
    assert stage.kinds() == ["GatewayReported", "GatewayConfigured"]
    await stage.perform(commands.ConfigureGateway("n1"))
    assert stage.cluster.gateways["n1"].listen == ":2"
    assert stage.host.events[-1] == gateway_events.GatewayConfigured("n1", 2)
    await stage.perform(commands.StopGateway("n1"))
    assert stage.host.events[-1] == gateway_events.GatewayStopped("n1")


async def test_many_changes_configure_a_gateway_once(stage: Stage) -> None:
    await stage.perform(commands.StartGateway("n1"))
    for _ in range(5):
        stage.host.post(events.Ticked())
        stage.effects.perform(commands.ConfigureGateway("n1"))
    await stage.effects.wait_until_settled("worker", "gateway")
    assert stage.cluster.gateways["n1"].listen == ":7"


async def test_a_gateway_that_refuses_a_snapshot_gets_it_again(stage: Stage) -> None:
    await stage.perform(commands.StartGateway("n1"))
    stage.cluster.failing_configures["n1"] = 1
    await stage.perform(commands.ConfigureGateway("n1"))
    assert stage.cluster.gateways["n1"].listen == ":0"
    assert stage.host.events[-1] == gateway_events.GatewayConfigured("n1", 0)
    await stage.clock.advance(effects.RETRY_S)
    await stage.effects.wait_until_settled("worker", "gateway")
    assert stage.cluster.gateways["n1"].listen == ":2"
    assert stage.host.events[-1] == gateway_events.GatewayConfigured("n1", 2)


async def test_a_gateway_that_can_t_be_started_is_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: snapshots.GatewaySnapshot | str) -> None:
        raise errors.Unavailable("no port is free")

    monkeypatch.setattr(stage.cluster, "start_gateway", fail)
    assert await stage.perform(commands.StartGateway("n1")) == [
        gateway_events.GatewayLost("n1", "no port is free")
    ]


async def test_a_worker_that_hangs_ends_its_unload(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: model.ModelId | str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(effects, "CALL_TIMEOUT_S", 0.01)
    monkeypatch.setattr(stage.cluster, "unload", hang)
    await stage.perform(START, commands.Unload(W, A, "t"))
    assert type(stage.host.events[-1].error) is errors.Unavailable


async def test_settling_is_waited_for_only_so_long(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(effects, "SETTLED_TIMEOUT_S", 0.01)

    async def hang(*_: snapshots.GatewaySnapshot | str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(stage.cluster, "start_gateway", hang)
    await stage.perform(commands.StartGateway("n1"))
    assert "still being performed" in caplog.text


async def test_a_gateway_that_is_gone_is_not_configured(stage: Stage) -> None:
    assert await stage.perform(commands.ConfigureGateway("n1")) == []


# Replicas


async def test_an_update_that_fails_is_no_loss_of_the_replica(stage: Stage) -> None:
    await stage.order(START_REPLICA)
    update = commands.UpdateReplica(R, START_REPLICA.spec)
    stage.cluster.failing_orders[R] = 1
    await stage.order(update, update, events_=3)
    assert stage.host.events[1:] == [
        llm_events.ReplicaUpdated(R, update.spec, f"{R} does not obey"),
        llm_events.ReplicaUpdated(R, update.spec),
    ]


async def test_a_replica_starts_sleeps_wakes_and_stops_in_order(stage: Stage) -> None:
    await stage.order(START_REPLICA)
    await stage.order(commands.SleepReplica(R, 2), commands.WakeReplica(R), events_=3)
    await stage.order(commands.StopReplica(R), events_=4)
    assert [type(event).__name__ for event in stage.host.events] == [
        "ReplicaReady",
        "ReplicaSlept",
        "ReplicaWoken",
        "ReplicaStopped",
    ]
    assert stage.cluster.calls == [
        "start replica l/0",
        "sleep replica l/0 2",
        "wake replica l/0",
        "stop replica l/0",
    ]


async def test_what_a_replica_can_t_do_is_its_loss_with_the_reason(stage: Stage) -> None:
    stage.cluster.failing_replicas[R] = 1
    assert await stage.order(START_REPLICA) == [llm_events.ReplicaLost(R, "l/0 can't be started")]
    await stage.order(START_REPLICA, events_=2)
    stage.cluster.failing_orders[R] = 2
    await stage.order(commands.SleepReplica(R, 1), commands.WakeReplica(R), events_=4)
    assert stage.host.events[2:] == [llm_events.ReplicaLost(R, "l/0 does not obey")] * 2


async def test_a_slow_start_holds_up_no_other_replica(stage: Stage) -> None:
    stage.cluster.slow[R] = asyncio.Event()
    other = commands.StartReplica("m/0", llm_spec.LlmSpec("m", "/m"), llm_spec.ReplicaPlan())
    assert (await stage.order(START_REPLICA, other))[0].replica_id == "m/0"


async def test_a_start_is_given_up_to_stop_and_what_comes_after_is_performed(stage: Stage) -> None:
    stage.cluster.slow[R] = asyncio.Event()
    stage.effects.perform(START_REPLICA)
    await asyncio.sleep(0)
    assert await stage.order(commands.StopReplica(R)) == [llm_events.ReplicaStopped(R)]
    stage.cluster.slow.clear()
    assert (await stage.order(START_REPLICA, events_=2))[1].replica_id == R


async def test_what_waits_behind_a_start_is_given_up_with_it(stage: Stage) -> None:
    stage.cluster.slow[R] = asyncio.Event()
    assert await stage.order(
        START_REPLICA, commands.SleepReplica(R, 1), commands.StopReplica(R)
    ) == [llm_events.ReplicaStopped(R)]
    assert "sleep replica l/0 1" not in stage.cluster.calls


async def test_a_stop_that_takes_too_long_is_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def forever(_: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(effects, "STOP_TIMEOUT_S", 0.01)
    monkeypatch.setattr(stage.cluster, "stop_replica", forever)
    assert await stage.order(commands.StopReplica(R)) == [llm_events.ReplicaStopped(R)]
    assert "stopping replica l/0" in caplog.text


async def test_nothing_is_performed_any_more_after_the_end(stage: Stage) -> None:
    stage.cluster.slow[R] = asyncio.Event()
    stage.effects.perform(START_REPLICA)
    await asyncio.sleep(0)
    stage.effects.close()
    stage.cluster.slow[R].set()
    await asyncio.sleep(0.02)
    assert stage.host.events == []
