from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.cluster import gpu_lease, named_actors
from meshserve.core.values import llm_spec

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


@pytest.fixture
async def named():
    made = named_actors.NamedActors()
    yield made
    for name in await made.names(gpu_lease.SEAT):
        await made.remove(name)


async def test_a_seat_is_made_once_and_goes_with_the_last_of_its_users(named):
    first, second = gpu_lease.GpuLeases(named), gpu_lease.GpuLeases(named_actors.NamedActors())
    assert await first.take("a/0", "g", llm_spec.ReplicaPlan((1,))) == await second.take(
        "b/0", "g", llm_spec.ReplicaPlan((1,))
    )
    await first.leave("a/0")
    assert await named.names(gpu_lease.SEAT) == ["seat:g"]
    await second.leave("b/0")
    assert await named.names(gpu_lease.SEAT) == []


async def test_a_seat_that_is_too_small_is_replaced(named):
    kept = gpu_lease.GpuLeases(named)
    assert len(await kept.take("a/0", "g", llm_spec.ReplicaPlan((1,)))) == 1
    assert len(await kept.take("a/0", "g", llm_spec.ReplicaPlan((2,)))) == 2


async def test_a_group_is_on_one_node(named):
    with pytest.raises(errors.Unsupported, match="one node"):
        await gpu_lease.GpuLeases(named).take("a/0", "g", llm_spec.ReplicaPlan((1, 1), "ray"))


async def test_no_room_is_said(named, monkeypatch):
    monkeypatch.setattr(gpu_lease, "TAKEN_S", 0.5)
    with pytest.raises(errors.Unavailable, match="no room for 9 GPUs"):
        await gpu_lease.GpuLeases(named).take("a/0", "g", llm_spec.ReplicaPlan((9,)))
    assert await named.names(gpu_lease.SEAT) == []
