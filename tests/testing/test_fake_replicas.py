from __future__ import annotations

import asyncio

import pytest

from meshserve import errors, tasks
from meshserve.core.values import llm_spec
from meshserve.testing import fake_replicas
from tests.contracts import replicas as contract

ON_GPU = llm_spec.LlmSpec("g", "/g")


@pytest.fixture
async def replicas() -> fake_replicas.FakeReplicas:
    return fake_replicas.FakeReplicas([])


class TestFakeReplicas(contract.ReplicasContract):
    """They keep the contract that real ones keep."""


async def test_a_start_fails_as_often_as_a_test_wants(replicas: fake_replicas.FakeReplicas) -> None:
    replicas.failing_replicas[contract.REPLICA] = 1
    with pytest.raises(errors.LoadFailed, match="can't be started"):
        await contract.start(replicas)
    assert await contract.start(replicas)


async def test_a_start_takes_as_long_as_a_test_wants(replicas: fake_replicas.FakeReplicas) -> None:
    replicas.slow[contract.REPLICA] = asyncio.Event()
    starting = tasks.spawn(contract.start(replicas), "start", is_awaited=True)
    await asyncio.sleep(0)
    assert await replicas.living_replicas() == ()
    replicas.slow[contract.REPLICA].set()
    assert (await starting).replica_id == contract.REPLICA


async def test_a_replica_on_gpus_holds_them_sleeps_and_wakes(
    replicas: fake_replicas.FakeReplicas,
) -> None:
    replicas.gpus = {"n1": 4}
    await replicas.start_replica("g/0", ON_GPU, llm_spec.ReplicaPlan((2,), node="n1"))
    assert await replicas.node_capacities() == (llm_spec.NodeCapacity("n1", 4, 2, 2, ("g/0",)),)
    await replicas.sleep_replica("g/0", 1)
    assert (await replicas.living_replicas())[0].is_asleep
    assert (await replicas.wake_replica("g/0")).took_s == fake_replicas.TOOK_S
    assert not (await replicas.living_replicas())[0].is_asleep


async def test_an_order_fails_as_often_as_a_test_wants(
    replicas: fake_replicas.FakeReplicas,
) -> None:
    await replicas.start_replica("g/0", ON_GPU, llm_spec.ReplicaPlan((1,), node="n1"))
    replicas.failing_orders["g/0"] = 1
    with pytest.raises(errors.Unavailable, match="does not obey"):
        await replicas.wake_replica("g/0")
    await replicas.wake_replica("g/0")
