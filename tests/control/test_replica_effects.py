from __future__ import annotations

import asyncio

import pytest

from meshserve.control import replica_effects
from meshserve.core.values import commands, events, llm_spec
from meshserve.testing import fake_replicas
from tests import support

R = "l/0"
START = commands.StartReplica(R, llm_spec.LlmSpec("l", "/l"), llm_spec.ReplicaPlan((1,), node="n1"))


class Stage:
    def __init__(self):
        self.calls, self.events = [], []
        self.replicas = fake_replicas.FakeReplicas(self.calls)
        self.hands = replica_effects.ReplicaEffects(self.replicas, self.events.append)

    async def perform(self, *asked, events_=1):
        for command in asked:
            self.hands.perform(command)
        await support.wait_until_async(lambda: len(self.events) >= events_, what=str(asked))
        return self.events


@pytest.fixture
async def stage():
    made = Stage()
    yield made
    made.hands.close()


async def test_a_replica_starts_sleeps_wakes_and_stops_in_order(stage):
    await stage.perform(START)
    await stage.perform(commands.SleepReplica(R, 2), commands.WakeReplica(R), events_=3)
    await stage.perform(commands.StopReplica(R), events_=4)
    assert [type(event).__name__ for event in stage.events] == [
        "ReplicaReady",
        "ReplicaSlept",
        "ReplicaWoken",
        "ReplicaStopped",
    ]
    assert stage.calls == [
        "start replica l/0",
        "sleep replica l/0 2",
        "wake replica l/0",
        "stop replica l/0",
    ]


async def test_what_a_replica_can_t_do_is_its_loss_with_the_reason(stage):
    stage.replicas.failing_replicas[R] = 1
    assert await stage.perform(START) == [events.ReplicaLost(R, "l/0 can't be started")]
    await stage.perform(START, events_=2)
    stage.replicas.failing_orders[R] = 2
    await stage.perform(commands.SleepReplica(R, 1), commands.WakeReplica(R), events_=4)
    assert stage.events[2:] == [events.ReplicaLost(R, "l/0 does not obey")] * 2


async def test_a_slow_start_holds_up_no_other_replica(stage):
    stage.replicas.slow[R] = asyncio.Event()
    other = commands.StartReplica("m/0", llm_spec.LlmSpec("m", "/m"), llm_spec.ReplicaPlan())
    assert (await stage.perform(START, other))[0].replica_id == "m/0"


async def test_a_start_is_given_up_to_stop_and_what_comes_after_is_performed(stage):
    stage.replicas.slow[R] = asyncio.Event()
    stage.hands.perform(START)
    await asyncio.sleep(0)
    assert await stage.perform(commands.StopReplica(R)) == [events.ReplicaStopped(R)]
    stage.replicas.slow.clear()
    assert (await stage.perform(START, events_=2))[1].replica_id == R


async def test_what_waits_behind_a_start_is_given_up_with_it(stage):
    stage.replicas.slow[R] = asyncio.Event()
    assert await stage.perform(START, commands.SleepReplica(R, 1), commands.StopReplica(R)) == [
        events.ReplicaStopped(R)
    ]
    assert "sleep replica l/0 1" not in stage.calls


async def test_a_stop_that_takes_too_long_is_over(stage, monkeypatch, caplog):
    async def forever(_):
        await asyncio.Event().wait()

    monkeypatch.setattr(replica_effects, "STOP_TIMEOUT_S", 0.01)
    monkeypatch.setattr(stage.replicas, "stop_replica", forever)
    assert await stage.perform(commands.StopReplica(R)) == [events.ReplicaStopped(R)]
    assert "stopping replica l/0" in caplog.text


async def test_nothing_is_performed_any_more_after_the_end(stage):
    stage.replicas.slow[R] = asyncio.Event()
    stage.hands.perform(START)
    await asyncio.sleep(0)
    stage.hands.close()
    stage.replicas.slow[R].set()
    await asyncio.sleep(0.02)
    assert stage.events == []
