from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve import errors
from meshserve.cluster import gpu_lease, named_actors
from meshserve.core.values import llm_spec

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


@pytest.fixture
async def named() -> AsyncIterator[Any]:
    actors = named_actors.NamedActors()
    yield actors
    for name in await actors.names(gpu_lease.PREFIX):
        await actors.remove(name)


async def test_a_lease_is_created_once_and_ends_with_its_last_user(named: Any) -> None:
    first, second = gpu_lease.GpuLeases(named), gpu_lease.GpuLeases(named_actors.NamedActors())
    assert await first.take("a/0", "g", llm_spec.ReplicaPlan((1,))) == await second.take(
        "b/0", "g", llm_spec.ReplicaPlan((1,))
    )
    await first.release("a/0")
    assert await named.names(gpu_lease.PREFIX) == ["lease:g"]
    await second.release("b/0")
    assert await named.names(gpu_lease.PREFIX) == []


async def test_a_lease_with_too_few_gpus_is_replaced(named: Any) -> None:
    leases = gpu_lease.GpuLeases(named)
    assert len(await leases.take("a/0", "g", llm_spec.ReplicaPlan((1,)))) == 1
    assert len(await leases.take("a/0", "g", llm_spec.ReplicaPlan((2,)))) == 2


async def test_a_group_must_fit_on_one_node(named: Any) -> None:
    with pytest.raises(errors.Unsupported, match="one node"):
        await gpu_lease.GpuLeases(named).take("a/0", "g", llm_spec.ReplicaPlan((1, 1), "ray"))


async def test_too_few_free_gpus_are_unavailable(
    named: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_lease, "START_S", 0.5)
    with pytest.raises(errors.Unavailable, match="no room for 9 GPUs"):
        await gpu_lease.GpuLeases(named).take("a/0", "g", llm_spec.ReplicaPlan((9,)))
    assert await named.names(gpu_lease.PREFIX) == []
