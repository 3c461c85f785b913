"""A model that is on several workers, with real Envoy before them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from meshserve.core.processes import hash_ring
from meshserve.core.values import snapshots
from tests.gateway.conftest import first_field, member

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

NAMES = ("default-0", "default-1", "big-0")
ASKED = 60


def spread(mesh, *workers, names=("hot", "an-alias")):
    """The same mesh with three workers in the default pool, and the model on these."""
    members = tuple(member(mesh.run_dir, name) for name in NAMES)
    hot = (snapshots.HotRoute("default", names, workers),) if workers else ()
    return replace(mesh.snapshot, pools={"default": members}, routes={}, hot=hot)


async def answered(mesh, name="hot", count=ASKED):
    """How many of so many requests at once each worker answered."""
    seen = await asyncio.gather(
        *(mesh.call(first_field(name.encode()), metadata=[("x-say", "slow")]) for _ in range(count))
    )
    return Counter(each["by"] for each in seen)


async def test_its_requests_go_to_all_that_have_it_and_to_nobody_else(mesh):
    await mesh.gateway.apply(spread(mesh, "default-1", "big-0"))
    for name in ("hot", "an-alias"):
        found = await answered(mesh, name)
        assert set(found) == {"default-1", "big-0"}
        assert min(found.values()) > ASKED / 4
    assert (await mesh.http.post("/v2/models/hot/infer")).json()["by"] in {"default-1", "big-0"}


async def test_all_others_stay_at_home(mesh):
    await mesh.gateway.apply(spread(mesh, "default-1", "big-0"))
    home = hash_ring.HashRing(NAMES).home
    for name in ("hotter", "iris", "other"):
        assert set(await answered(mesh, name, 10)) == {home(name)}


async def test_what_comes_while_it_spreads_and_goes_home_is_all_answered(mesh):
    home = hash_ring.HashRing(NAMES).home("hot")
    await mesh.gateway.apply(spread(mesh))
    seen, is_over = Counter(), asyncio.Event()

    async def ask():
        while not is_over.is_set():
            seen[(await mesh.call(first_field(b"hot")))["by"]] += 1

    asking = [asyncio.get_running_loop().create_task(ask()) for _ in range(8)]
    for workers in (NAMES, NAMES[:2], (), NAMES, ()) * 3:
        await mesh.gateway.apply(spread(mesh, *workers))
        await asyncio.sleep(0.05)
    is_over.set()
    await asyncio.gather(*asking)
    assert set(seen) == set(NAMES)
    assert set(await answered(mesh, "hot", 10)) == {home}


async def test_where_no_worker_is_known_to_have_it_any_one_is_asked(mesh):
    await mesh.gateway.apply(spread(mesh, "nobody", "gone"))
    assert set(await answered(mesh)) <= set(NAMES)


async def test_one_that_sends_requests_away_is_passed_over(mesh):
    await mesh.gateway.apply(spread(mesh, *NAMES))
    mesh.echoes["default-0"].is_unavailable = True
    seen = [(await mesh.call(first_field(b"hot")))["by"] for _ in range(ASKED)]
    assert set(seen) == {"default-1", "big-0"}
    assert mesh.echoes["default-0"].seen
