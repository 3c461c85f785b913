from __future__ import annotations

import asyncio

import httpx
import pytest

from meshserve import errors, tasks
from meshserve.control import control_plane
from tests.control import conftest


async def test_a_first_configuration_returns_its_changes(fresh: conftest.Stage) -> None:
    assert await fresh.start(conftest.CONFIG) == (
        "pool default added: 2 workers",
        "pool gpu added: 1 worker",
        "model conf:1 added",
        "model big:1 added",
        "alias al means conf",
    )


async def test_the_same_configuration_again_changes_nothing(stage: conftest.Stage) -> None:
    await stage.plane.close()
    calls = len(stage.cluster.calls)
    assert await stage.start(conftest.CONFIG) == ()
    assert stage.cluster.calls[calls:] == ["start gateway n1"]


async def test_without_a_document_the_last_one_holds(stage: conftest.Stage) -> None:
    await stage.plane.close()
    stage.cluster.kill("gpu-0")
    await stage.start()
    assert sorted(stage.cluster.workers) == ["default-0", "default-1", "gpu-0"]


async def test_requests_wait_until_the_registry_has_been_read(stage: conftest.Stage) -> None:
    await stage.plane.close()
    again = control_plane.ControlPlane(stage.plane._parts)
    transport = httpx.ASGITransport(again.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mesh") as http:
        asked = tasks.spawn(http.get("/mesh/v1/models/conf"), "ask", is_awaited=True)
        await asyncio.sleep(0)
        assert not asked.done()
        await again.start(conftest.ENDPOINT)
        assert (await asked).status_code == 200
    await again.close()


async def test_a_wrong_document_starts_nothing(fresh: conftest.Stage) -> None:
    with pytest.raises(errors.ConfigInvalid):
        await fresh.start({"poolz": {}})
    assert fresh.cluster.calls == []


async def test_a_drained_plane_has_ended_everything(stage: conftest.Stage) -> None:
    await stage.plane.drain()
    assert (stage.cluster.workers, stage.cluster.gateways) == ({}, {})


async def test_processes_go_on_without_the_control_plane(stage: conftest.Stage) -> None:
    await stage.plane.close()
    assert (len(stage.cluster.workers), len(stage.cluster.gateways)) == (3, 1)


async def test_time_goes_on_while_the_real_clock_sleeps() -> None:
    clock = control_plane.RealClock()
    before_s = clock.now_s()
    await clock.sleep(0.02)
    assert clock.now_s() - before_s >= 0.015
