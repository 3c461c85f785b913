"""LLMs under the whole control plane: what the mesh decides, performed on fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from meshserve import tasks
from meshserve.control import mesh_json
from meshserve.core.values import events, llm_events, llm_spec
from tests.control import conftest, llms

HELD = "/mesh/internal/held"


@pytest.fixture
async def client(fresh: conftest.Stage) -> AsyncIterator[httpx.AsyncClient]:
    await fresh.start(llms.CONFIG)
    async with fresh.client() as http:
        yield http


def view_of(stage: conftest.Stage, name: str) -> dict[str, Any]:
    return next(
        item for item in mesh_json.status(stage.mesh.view())["llms"] if item["name"] == name
    )


def starts(stage: conftest.Stage, name: str) -> int:
    return stage.cluster.calls.count(f"start replica {name}/0")


async def is_ready(stage: conftest.Stage, name: str) -> None:
    await stage.until(lambda: view_of(stage, name)["state"] == "ready", f"{name} is ready")


async def test_an_llm_with_a_minimum_starts_and_gateways_know(
    fresh: conftest.Stage, client: httpx.AsyncClient
) -> None:
    await is_ready(fresh, "always")
    (route,) = [route for route in fresh.cluster.gateways["n1"].llms if route.name == "always"]
    assert route.names == ("always", "org/always", "always-sql")
    await fresh.until(lambda: not fresh.cluster.gateways["n1"].llms[0].is_held)
    assert (view_of(fresh, "rare")["state"], starts(fresh, "rare")) == ("idle", 0)
    assert (await client.post(HELD, params={"model": "always-sql"})).status_code == 200


async def test_many_requests_at_once_make_one_start(
    fresh: conftest.Stage, client: httpx.AsyncClient
) -> None:
    gate = fresh.cluster.slow["rare/0"] = asyncio.Event()
    waiting = [
        tasks.spawn(
            client.post(HELD, params={"model": "rare", "bytes": "9"}), "post", is_awaited=True
        )
        for _ in range(50)
    ]
    await fresh.until(lambda: view_of(fresh, "rare")["held"] == 50)
    gate.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    assert starts(fresh, "rare") == 1
    assert (
        view_of(fresh, "rare")["held"],
        view_of(fresh, "rare")["starts"],
        view_of(fresh, "rare")["start_s"],
    ) == (0, 1, 7.0)


async def test_a_failed_start_turns_requests_away_with_reason_and_wait(
    fresh: conftest.Stage, client: httpx.AsyncClient
) -> None:
    fresh.cluster.failing_replicas["rare/0"] = 1
    answer = await client.post(HELD, params={"model": "rare"})
    assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
    assert "rare/0 can't be started" in answer.json()["error"]["message"]
    assert view_of(fresh, "rare")["reason"] == "rare/0 can't be started"


@pytest.mark.usefixtures("client")
async def test_a_lost_replica_is_restarted(fresh: conftest.Stage) -> None:
    await is_ready(fresh, "always")
    fresh.cluster.kill_replica("always/0", "the engine core was killed")
    await fresh.until(lambda: view_of(fresh, "always")["state"] == "failed")
    await fresh.clock.advance(2.0)
    await is_ready(fresh, "always")
    assert view_of(fresh, "always")["replicas"][0]["restarts"] == 1


async def test_an_idle_llm_is_stopped(fresh: conftest.Stage, client: httpx.AsyncClient) -> None:
    assert (await client.post(HELD, params={"model": "rare"})).status_code == 200
    for _ in range(310):
        await fresh.clock.advance(1.0)
    await fresh.until(lambda: view_of(fresh, "rare")["state"] == "idle")
    assert "rare/0" not in fresh.cluster.replicas
    assert "always/0" in fresh.cluster.replicas


@pytest.mark.usefixtures("client")
async def test_a_replicas_report_is_shown(fresh: conftest.Stage) -> None:
    await is_ready(fresh, "always")
    said = llm_spec.LlmReport(
        "always/0", running=2, waiting=1, tokens_per_s=30.5, ttft_p50_s=0.25, kv_used=0.5
    )
    fresh.cluster.replicas["always/0"].last_report = said
    await fresh.clock.advance(1.1)
    await fresh.until(lambda: view_of(fresh, "always")["replicas"][0]["running"])
    (replica,) = view_of(fresh, "always")["replicas"]
    assert (replica["id"], replica["state"], replica["node"]) == ("always/0", "ready", "n1")
    assert (
        replica["waiting"],
        replica["tokens_per_s"],
        replica["ttft_p50_s"],
        replica["kv_used"],
    ) == (1, 30.5, 0.25, 0.5)


async def test_an_llm_that_waits_for_gpus_says_so_and_holds_up_no_other(
    fresh: conftest.Stage, client: httpx.AsyncClient
) -> None:
    document = {
        **llms.CONFIG,
        "llms": [
            *llms.CONFIG["llms"],
            {"name": "big", "uri": "/big", "device": "cuda", "tensor_parallel_size": 4},
        ],
    }
    assert (await client.post("/mesh/v1/apply", json=document)).status_code == 200
    await fresh.clock.advance(2.1)
    await fresh.until(lambda: "4 GPUs" in view_of(fresh, "big")["reason"])
    assert (view_of(fresh, "big")["state"], mesh_json.status(fresh.mesh.view())["state"]) == (
        "starting",
        "ready",
    )
    fresh.cluster.gpus["n1"] = 4
    await fresh.clock.advance(2.1)
    await is_ready(fresh, "big")


@pytest.mark.usefixtures("client")
async def test_a_controller_that_begins_again_takes_engines_over(fresh: conftest.Stage) -> None:
    await is_ready(fresh, "always")
    await fresh.plane.close()
    await fresh.start(restarts=1)
    await is_ready(fresh, "always")
    assert starts(fresh, "always") == 1
    fresh.cluster.kill_replica("always/0")
    await fresh.until(lambda: view_of(fresh, "always")["state"] == "failed")


async def test_everything_ends_in_good_order(
    fresh: conftest.Stage, client: httpx.AsyncClient
) -> None:
    await is_ready(fresh, "always")
    waiting = tasks.spawn(client.post(HELD, params={"model": "rare"}), "post", is_awaited=True)
    await waiting
    await fresh.plane.drain()
    assert (fresh.cluster.replicas, fresh.cluster.gateways, fresh.cluster.workers) == ({}, {}, {})


async def test_capacity_is_looked_at_only_with_llms(
    fresh: conftest.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fresh.start({"pools": llms.CONFIG["pools"]})
    told_before = fresh.plane.controller.events_handled
    posted: list[events.Event] = []
    monkeypatch.setattr(fresh.plane.controller, "post", posted.append)
    await fresh.clock.advance(4.1)
    assert told_before
    assert not any(isinstance(event, llm_events.CapacitySeen) for event in posted)
