"""LLMs under the whole control plane: what the mesh decides, performed on fakes."""

from __future__ import annotations

import asyncio

import pytest

from meshserve.control import mesh_views
from meshserve.core.values import events, llm_spec
from tests.control import llms

HELD = "/mesh/internal/held"


@pytest.fixture
async def client(fresh):
    await fresh.start(llms.CONFIG)
    async with fresh.client() as made:
        yield made


def told(stage, name):
    return next(
        each for each in mesh_views.status(stage.mesh.view())["llms"] if each["name"] == name
    )


def starts(stage, name):
    return stage.cluster.calls.count(f"start replica {name}/0")


async def is_ready(stage, name):
    await stage.until(lambda: told(stage, name)["state"] == "ready", f"{name} is ready")


async def test_one_that_is_always_wanted_starts_and_gateways_know(fresh, client):
    await is_ready(fresh, "always")
    (route,) = [route for route in fresh.cluster.gateways["n1"].llms if route.name == "always"]
    assert route.names == ("always", "org/always", "always-sql")
    await fresh.until(lambda: not fresh.cluster.gateways["n1"].llms[0].is_held)
    assert (told(fresh, "rare")["state"], starts(fresh, "rare")) == ("idle", 0)
    assert (await client.post(HELD, params={"model": "always-sql"})).status_code == 200


async def test_many_that_come_at_once_are_one_start_and_all_are_let_through(fresh, client):
    gate = fresh.cluster.slow["rare/0"] = asyncio.Event()
    waiting = [
        asyncio.ensure_future(client.post(HELD, params={"model": "rare", "bytes": "9"}))
        for _ in range(50)
    ]
    await fresh.until(lambda: told(fresh, "rare")["held"] == 50)
    gate.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    assert starts(fresh, "rare") == 1
    assert (
        told(fresh, "rare")["held"],
        told(fresh, "rare")["starts"],
        told(fresh, "rare")["start_s"],
    ) == (0, 1, 7.0)


async def test_one_whose_start_fails_turns_away_with_the_reason_and_the_wait(fresh, client):
    fresh.cluster.failing_replicas["rare/0"] = 1
    answer = await client.post(HELD, params={"model": "rare"})
    assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
    assert "rare/0 can't be started" in answer.json()["error"]["message"]
    assert told(fresh, "rare")["reason"] == "rare/0 can't be started"


@pytest.mark.usefixtures("client")
async def test_one_that_dies_comes_back_by_itself(fresh):
    await is_ready(fresh, "always")
    fresh.cluster.kill_replica("always/0", "the engine core was killed")
    await fresh.until(lambda: told(fresh, "always")["state"] == "failed")
    await fresh.clock.advance(2.0)
    await is_ready(fresh, "always")
    assert told(fresh, "always")["replicas"][0]["restarts"] == 1


async def test_one_that_nobody_uses_goes(fresh, client):
    assert (await client.post(HELD, params={"model": "rare"})).status_code == 200
    for _ in range(310):
        await fresh.clock.advance(1.0)
    await fresh.until(lambda: told(fresh, "rare")["state"] == "idle")
    assert "rare/0" not in fresh.cluster.replicas
    assert "always/0" in fresh.cluster.replicas


@pytest.mark.usefixtures("client")
async def test_what_a_replica_tells_is_shown(fresh):
    await is_ready(fresh, "always")
    said = llm_spec.LlmReport(
        "always/0", running=2, waiting=1, tokens_per_s=30.5, ttft_p50_s=0.25, kv_used=0.5
    )
    fresh.cluster.replicas["always/0"].last_report = said
    await fresh.clock.advance(1.1)
    await fresh.until(lambda: told(fresh, "always")["replicas"][0]["running"])
    (replica,) = told(fresh, "always")["replicas"]
    assert (replica["id"], replica["state"], replica["node"]) == ("always/0", "ready", "n1")
    assert (
        replica["waiting"],
        replica["tokens_per_s"],
        replica["ttft_p50_s"],
        replica["kv_used"],
    ) == (1, 30.5, 0.25, 0.5)


async def test_one_that_waits_for_gpus_says_which_and_holds_up_nobody(fresh, client):
    document = {
        **llms.CONFIG,
        "llms": [
            *llms.CONFIG["llms"],
            {"name": "big", "uri": "/big", "device": "cuda", "tensor_parallel_size": 4},
        ],
    }
    assert (await client.post("/mesh/v1/apply", json=document)).status_code == 200
    await fresh.clock.advance(2.1)
    await fresh.until(lambda: "4 GPUs" in told(fresh, "big")["reason"])
    assert (told(fresh, "big")["state"], mesh_views.status(fresh.mesh.view())["state"]) == (
        "starting",
        "ready",
    )
    fresh.cluster.gpus["n1"] = 4
    await fresh.clock.advance(2.1)
    await is_ready(fresh, "big")


@pytest.mark.usefixtures("client")
async def test_a_controller_that_begins_again_takes_engines_over(fresh):
    await is_ready(fresh, "always")
    await fresh.plane.close()
    await fresh.start(restarts=1)
    await is_ready(fresh, "always")
    assert starts(fresh, "always") == 1
    fresh.cluster.kill_replica("always/0")
    await fresh.until(lambda: told(fresh, "always")["state"] == "failed")


async def test_everything_ends_in_good_order(fresh, client):
    await is_ready(fresh, "always")
    waiting = asyncio.ensure_future(client.post(HELD, params={"model": "rare"}))
    await waiting
    await fresh.plane.drain()
    assert (fresh.cluster.replicas, fresh.cluster.gateways, fresh.cluster.workers) == ({}, {}, {})


async def test_what_the_nodes_have_is_told_only_where_there_are_llms(fresh):
    await fresh.start({"pools": llms.CONFIG["pools"]})
    told_before = fresh.plane.controller.events_handled
    posted = []
    fresh.plane.controller.post = posted.append
    await fresh.clock.advance(4.1)
    assert told_before
    assert not any(isinstance(event, events.CapacitySeen) for event in posted)
