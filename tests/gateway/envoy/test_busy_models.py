"""A model that several workers serve, behind a real Envoy."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from meshserve import tasks
from meshserve.core.processes import hash_ring
from meshserve.core.values import snapshots
from tests.gateway import conftest
from tests.gateway.conftest import first_field, member

pytestmark = [
    pytest.mark.edge,
    pytest.mark.asyncio(loop_scope="module"),
    conftest.BY_EACH_WAY,
]

NAMES = ("default-0", "default-1", "big-0")
ASKED = 60


def spread(
    mesh: conftest.Mesh, *workers: str, names: tuple[str, ...] = ("hot", "an-alias")
) -> snapshots.GatewaySnapshot:
    """Return the mesh with three workers in the default pool, and the hot model on `workers`."""
    members = tuple(member(mesh.run_dir, name) for name in NAMES)
    hot = (snapshots.HotRoute("default", names, workers),) if workers else ()
    return replace(mesh.snapshot, pools={"default": members}, routes={}, hot=hot)


async def answered(mesh: conftest.Mesh, name: str = "hot", count: int = ASKED) -> Counter[str]:
    """Send `count` requests at once and count them by the worker that answered."""
    seen = await asyncio.gather(
        *(mesh.call(first_field(name.encode()), metadata=[("x-say", "slow")]) for _ in range(count))
    )
    return Counter(picture["by"] for picture in seen)


async def test_a_hot_models_requests_go_to_its_workers_and_no_other(mesh: conftest.Mesh) -> None:
    await mesh.gateway.apply(spread(mesh, "default-1", "big-0"))
    for name in ("hot", "an-alias"):
        counts = await answered(mesh, name)
        assert set(counts) == {"default-1", "big-0"}
        # Envoy chooses by chance where both are equally busy: 14 of 60 were seen.
        assert min(counts.values()) > ASKED / 8
    assert (await mesh.http.post("/v2/models/hot/infer")).json()["by"] in {"default-1", "big-0"}


async def test_other_models_stay_at_their_home(mesh: conftest.Mesh) -> None:
    await mesh.gateway.apply(spread(mesh, "default-1", "big-0"))
    home = hash_ring.HashRing(NAMES).home
    for name in ("hotter", "iris", "other"):
        assert set(await answered(mesh, name, 10)) == {home(name)}


async def test_no_request_fails_while_a_model_spreads_and_returns(mesh: conftest.Mesh) -> None:
    home = hash_ring.HashRing(NAMES).home("hot")
    await mesh.gateway.apply(spread(mesh))
    seen: Counter[str] = Counter()
    is_over = asyncio.Event()

    async def ask() -> None:
        while not is_over.is_set():
            seen[(await mesh.call(first_field(b"hot")))["by"]] += 1

    asking = [tasks.spawn(ask(), "ask", is_awaited=True) for _ in range(8)]
    for workers in (NAMES, NAMES[:2], (), NAMES, ()) * 3:
        await mesh.gateway.apply(spread(mesh, *workers))
        await asyncio.sleep(0.05)
    is_over.set()
    await asyncio.gather(*asking)
    assert set(seen) == set(NAMES)
    assert set(await answered(mesh, "hot", 10)) == {home}


async def test_a_hot_model_without_workers_is_answered_by_any(mesh: conftest.Mesh) -> None:
    await mesh.gateway.apply(spread(mesh, "nobody", "gone"))
    assert set(await answered(mesh)) <= set(NAMES)


async def test_a_worker_that_answers_503_is_skipped(mesh: conftest.Mesh) -> None:
    await mesh.gateway.apply(spread(mesh, *NAMES))
    mesh.echoes["default-0"].is_unavailable = True
    seen = [(await mesh.call(first_field(b"hot")))["by"] for _ in range(ASKED)]
    assert set(seen) == {"default-1", "big-0"}
    assert mesh.echoes["default-0"].seen
