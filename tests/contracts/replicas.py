"""What every `cluster_control.ReplicaControl` promises.

Subclass `ReplicasContract` and give it a `replicas` fixture without replicas.
"""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from meshserve import errors, tasks
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import llm_events, llm_spec

REPLICA = "tiny llm/0"
SPEC = llm_spec.LlmSpec("tiny llm", "/weights", device="cpu", start_timeout_s=60.0)
WAIT_S = 60.0


async def start(
    replicas: cluster_control.ReplicaControl, spec: llm_spec.LlmSpec = SPEC
) -> llm_events.ReplicaReady:
    return await replicas.start_replica(REPLICA, spec, llm_spec.ReplicaPlan())


class ReplicasContract:
    async def test_nodes_have_capacities(self, replicas: cluster_control.ReplicaControl) -> None:
        (capacity, *_) = await replicas.node_capacities()
        assert capacity.node != ""
        assert capacity.cores >= 1
        assert capacity.gpus >= capacity.gpus_free >= 0

    async def test_a_started_replica_lives_and_listens(
        self, replicas: cluster_control.ReplicaControl
    ) -> None:
        ready = await start(replicas)
        assert ready.replica_id == REPLICA
        assert ready.endpoint.port > 0
        assert ready.took_s > 0
        assert await replicas.living_replicas() == (
            llm_spec.LivingReplica(REPLICA, SPEC, ready.endpoint, ready.pid),
        )

    async def test_a_replica_reports(self, replicas: cluster_control.ReplicaControl) -> None:
        await start(replicas)
        report = await replicas.replica_report(REPLICA)
        assert report.replica_id == REPLICA
        assert (report.running, report.waiting, report.stalled_s) == (0, 0, 0.0)

    async def test_a_replica_that_is_started_again_is_another_process(
        self, replicas: cluster_control.ReplicaControl
    ) -> None:
        first = await start(replicas)
        lost = tasks.spawn(
            replicas.wait_until_replica_lost(REPLICA), "wait until replica lost", is_awaited=True
        )
        await asyncio.sleep(0.05)
        second = await start(replicas)
        assert second.pid != first.pid
        async with asyncio.timeout(WAIT_S):
            assert await lost
        assert len(await replicas.living_replicas()) == 1

    async def test_a_stopped_replica_is_gone_and_can_be_stopped_again(
        self, replicas: cluster_control.ReplicaControl
    ) -> None:
        await start(replicas)
        lost = tasks.spawn(
            replicas.wait_until_replica_lost(REPLICA), "wait until replica lost", is_awaited=True
        )
        await asyncio.sleep(0.05)
        assert not lost.done()
        await replicas.stop_replica(REPLICA)
        async with asyncio.timeout(WAIT_S):
            assert await lost
        assert await replicas.living_replicas() == ()
        await replicas.stop_replica(REPLICA)

    async def test_a_replica_follows_another_spec(
        self, replicas: cluster_control.ReplicaControl
    ) -> None:
        ready = await start(replicas)
        other = dataclasses.replace(SPEC, stall_timeout_s=7.0)
        await replicas.update_replica(REPLICA, other)
        assert await replicas.living_replicas() == (
            llm_spec.LivingReplica(REPLICA, other, ready.endpoint, ready.pid),
        )

    async def test_a_replica_on_a_cpu_refuses_to_sleep_and_goes_on(
        self, replicas: cluster_control.ReplicaControl
    ) -> None:
        await start(replicas)
        with pytest.raises(errors.Unsupported, match="can't sleep"):
            await replicas.sleep_replica(REPLICA, 1)
        assert not (await replicas.living_replicas())[0].is_asleep
        assert (await replicas.replica_report(REPLICA)).replica_id == REPLICA

    async def test_a_replica_that_does_not_exist_is_unavailable(
        self, replicas: cluster_control.ReplicaControl
    ) -> None:
        for call in (
            replicas.replica_report(REPLICA),
            replicas.wake_replica(REPLICA),
            replicas.update_replica(REPLICA, SPEC),
            replicas.sleep_replica(REPLICA, 1),
        ):
            with pytest.raises(errors.Unavailable):
                await call
        assert await replicas.wait_until_replica_lost(REPLICA)
