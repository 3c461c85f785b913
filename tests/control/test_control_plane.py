from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import httpx
import pytest

from meshserve import errors, tasks
from meshserve.control import control_plane, lease_keeper
from meshserve.core.values import registry_contents
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


async def test_a_fenced_control_plane_says_why_and_saves_nothing(
    stage: conftest.Stage, http: httpx.AsyncClient
) -> None:
    await http.put("/mesh/v1/models/more", json={"uri": "/models/more"})
    stage.store.lease = registry_contents.WriteLease("new", "the mesh next door", 9)
    answer = await http.put("/mesh/v1/models/late", json={"uri": "/models/late"})
    assert answer.status_code == 503
    assert "the mesh next door has taken the registry" in answer.json()["error"]
    assert "the mesh next door" in await stage.plane.lost
    assert stage.names() == ["big", "conf", "more"]


async def test_two_control_planes_on_one_registry_are_one_too_many(
    stage: conftest.Stage, tmp_path: Path
) -> None:
    second = conftest.Stage(str(tmp_path), store=stage.store, clock=stage.clock)
    second.plane = control_plane.ControlPlane(
        dataclasses.replace(stage.plane._parts, cluster=second.cluster)
    )
    claim = lease_keeper.LeaseClaim("second", "a second mesh")
    began = tasks.spawn(
        second.plane.start(conftest.ENDPOINT, "{}", claim), "second", is_awaited=True
    )
    while not began.done():
        await stage.clock.advance(0.1)
    with pytest.raises(errors.Unavailable, match="the only mesh writes this registry"):
        await began
    assert second.cluster.calls == []
    await second.plane.close()


async def test_a_request_is_refused_while_the_registry_can_t_be_read(
    stage: conftest.Stage,
) -> None:
    await stage.plane.close()
    stage.store.lease = registry_contents.WriteLease("new", "the mesh next door", 9)
    again = control_plane.ControlPlane(stage.plane._parts)
    claim = lease_keeper.LeaseClaim("mine", "this mesh", is_patient=True)
    began = tasks.spawn(again.start(conftest.ENDPOINT, "", claim), "again", is_awaited=True)
    while not again.lease.is_known.is_set():
        lease = stage.store.lease
        stage.store.lease = dataclasses.replace(lease, beats=lease.beats + 1)
        await stage.clock.advance(0.1)
    transport = httpx.ASGITransport(again.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mesh") as http:
        answer = await http.get("/mesh/v1/models/conf")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "the mesh next door writes this registry" in answer.json()["error"]
        while not began.done():
            await stage.clock.advance(0.1)
        await began
        assert (await http.get("/mesh/v1/models/conf")).status_code == 200
    await again.close()


async def test_a_control_plane_that_is_refused_leaves_the_registry(
    fresh: conftest.Stage,
) -> None:
    with pytest.raises(errors.MeshError):
        await fresh.start({"models": [{"name": "a", "uri": "/a"}, {"name": "a", "uri": "/b"}]})
    assert fresh.store.lease.holder == ""
