from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from meshserve import errors, tasks
from meshserve.cluster import named_actors, ray_cluster, replica_placement
from meshserve.core.values import llm_spec
from tests import support
from tests.cluster import conftest
from tests.contracts import replicas as contract

pytestmark = [pytest.mark.edge, pytest.mark.slow]

ON_GPU = llm_spec.LlmSpec("tiny llm", "/weights")
SHARING = llm_spec.LlmSpec("tiny llm", "/weights", share="g")


@pytest.fixture
async def replicas(ray_session: Any, makers: ray_cluster.Makers) -> AsyncIterator[Any]:  # noqa: ARG001 - it must run
    replicas = ray_cluster.RayCluster(makers)
    yield replicas
    await replicas.stop_replica(contract.REPLICA)


class TestRayClusterReplicas(contract.ReplicasContract):
    """Real servers around fake engines, in real processes."""


def children(pid: Any) -> Any:
    return {
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdecimal() and _group(path) == pid and int(path.name) != pid
    }


def _group(process: Any) -> Any:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except OSError:
        return 0


async def wait_until_alone(pid: Any) -> None:
    await support.wait_until_async(
        lambda: not children(pid), contract.WAIT_S, "its children have ended"
    )


async def test_a_replica_answers_on_its_endpoint(replicas: Any) -> None:
    ready = await contract.start(replicas)
    transport = httpx.AsyncHTTPTransport(uds=ready.endpoint.socket_path)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://replica", timeout=contract.WAIT_S
    ) as client:
        assert (await client.get("/v1/models")).status_code == 401
        client.headers["x-mesh-secret"] = conftest.SECRET
        answer = await client.post(
            "/v1/completions", json={"model": contract.SPEC.name, "prompt": "x", "max_tokens": 3}
        )
    assert answer.status_code == 200
    assert (await replicas.replica_report(contract.REPLICA)).requests == 1


@pytest.mark.parametrize("ending", ["stop", "kill"])
async def test_the_processes_of_the_engine_end_with_the_replica(replicas: Any, ending: str) -> None:
    ready = await contract.start(replicas)
    assert children(ready.pid)
    if ending == "stop":
        await replicas.stop_replica(contract.REPLICA)
    else:
        os.kill(ready.pid, signal.SIGKILL)
    await wait_until_alone(ready.pid)
    async with asyncio.timeout(named_actors.CALL_S):
        assert await replicas.wait_until_replica_lost(contract.REPLICA)


async def test_a_stopped_replica_is_replaced_with_all_its_processes(replicas: Any) -> None:
    ready = await contract.start(replicas)
    for pid in (ready.pid, *children(ready.pid)):
        os.kill(pid, signal.SIGSTOP)
    restarted = await contract.start(replicas)
    assert restarted.pid != ready.pid
    await wait_until_alone(ready.pid)


async def test_a_failed_start_has_its_reason_and_leaves_nothing(replicas: Any) -> None:
    with pytest.raises(errors.LoadFailed, match=r"^the weights are cut off$"):
        await contract.start(
            replicas, llm_spec.LlmSpec("tiny llm", "broken:the weights are cut off")
        )
    assert await replicas.living_replicas() == ()
    assert contract.REPLICA not in str(ray.util.list_named_actors())


async def test_a_start_has_a_time_limit(replicas: Any) -> None:
    with pytest.raises(errors.MeshError, match="within 3 s"):
        await contract.start(replicas, llm_spec.LlmSpec("tiny llm", "slow", start_timeout_s=3.0))
    assert contract.REPLICA not in str(ray.util.list_named_actors())


async def test_a_replica_can_be_stopped_while_it_starts(replicas: Any) -> None:
    starting = tasks.spawn(
        contract.start(replicas, llm_spec.LlmSpec("tiny llm", "slow")), "start", is_awaited=True
    )
    while contract.REPLICA not in str(ray.util.list_named_actors()):  # noqa: ASYNC110 - another process decides
        await asyncio.sleep(0.05)
    starting.cancel()
    await replicas.stop_replica(contract.REPLICA)
    assert contract.REPLICA not in str(ray.util.list_named_actors())


async def test_a_restarted_controller_keeps_ready_replicas_and_ends_starting_ones(
    replicas: Any, makers: ray_cluster.Makers
) -> None:
    ready = await contract.start(replicas)
    restarted = ray_cluster.RayCluster(makers)
    starting = tasks.spawn(
        replicas.start_replica(
            "other/0", llm_spec.LlmSpec("other", "slow"), llm_spec.ReplicaPlan()
        ),
        "start replica",
        is_awaited=True,
    )
    await support.wait_until_async(
        lambda: "other/0" in str(ray.util.list_named_actors()), contract.WAIT_S
    )
    (living,) = await restarted.living_replicas()
    assert (living.pid, living.endpoint) == (ready.pid, ready.endpoint)
    with pytest.raises(errors.Unavailable):
        await starting


async def test_gpus_that_stay_taken_are_unavailable(
    replicas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_placement, "PLACED_S", 0.5)
    with pytest.raises(
        errors.Unavailable, match=r"no room for its GPUs within 0.5 s: bundles of \[3\]"
    ):
        await replicas.start_replica(contract.REPLICA, contract.SPEC, llm_spec.ReplicaPlan((3,)))
    with pytest.raises(ValueError, match="Failed to look up"):
        ray.util.get_placement_group(replica_placement.GROUP + contract.REPLICA)


async def free(replicas: Any, gpus: Any) -> Any:
    """Ray tells what is free a little later."""
    end_s = asyncio.get_running_loop().time() + contract.WAIT_S
    while (room := (await replicas.node_capacities())[0]).gpus_free != gpus:
        assert asyncio.get_running_loop().time() < end_s, room
        await asyncio.sleep(0.05)
    return room


async def test_a_replica_books_its_gpus_until_it_is_stopped(replicas: Any) -> None:
    node = (await free(replicas, 2)).node
    await replicas.start_replica(contract.REPLICA, ON_GPU, llm_spec.ReplicaPlan((2,), node=node))
    assert (await free(replicas, 0)).replicas == (contract.REPLICA,)
    assert await visible_gpus(replicas, contract.REPLICA) == "0,1"
    await replicas.stop_replica(contract.REPLICA)
    assert (await free(replicas, 2)).replicas == ()


async def test_sharing_replicas_use_the_same_gpus_and_the_last_one_frees_them(
    replicas: Any,
) -> None:
    node = (await free(replicas, 2)).node
    for name in ("a/0", "b/0"):
        await replicas.start_replica(name, SHARING, llm_spec.ReplicaPlan((1,), node=node))
    assert (await free(replicas, 1)).replicas == ("a/0", "b/0")
    assert await visible_gpus(replicas, "a/0") == await visible_gpus(replicas, "b/0") != ""
    await replicas.stop_replica("a/0")
    assert (await free(replicas, 1)).replicas == ("b/0",)
    await replicas.stop_replica("b/0")
    assert (await free(replicas, 2)).replicas == ()


async def visible_gpus(replicas: Any, replica_id: Any) -> Any:
    """What its process hands on to its engine."""
    (pid,) = [
        living.pid for living in await replicas.living_replicas() if living.replica_id == replica_id
    ]
    return (
        await replicas._actors.call(ray_cluster.REPLICA + replica_id, "__ray_call__", _visible)
        if pid
        else ""
    )


def _visible(_actor: Any) -> Any:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")
