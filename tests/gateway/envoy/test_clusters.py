"""Which worker of a pool answers: the ring, readiness, and the death of a worker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshserve import tasks
from meshserve.core.processes import hash_ring
from meshserve.core.values import model, snapshots
from meshserve.gateway.envoy import clusters, gateway_paths, ring_shares
from tests import support
from tests.gateway import conftest
from tests.gateway.conftest import first_field, member

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

LAYOUT = gateway_paths.GatewayPaths("/run")
NAMES = [f"model-{number}" for number in range(299)] + ["modèle-日本"]


def endpoints(*members: Any, node: str = "n1") -> Any:
    snap = snapshots.GatewaySnapshot("127.0.0.1:1", node, {"default": members})
    assignment: Any = clusters.members(snap, LAYOUT)["pool-default"]
    return [
        entry
        for locality in assignment["endpoints"]
        if locality["locality"]["zone"] != ring_shares.RESERVE
        for entry in locality["lb_endpoints"]
    ]


async def test_members_on_the_same_node_are_reached_by_socket_and_others_by_port() -> None:
    near = snapshots.RingMember("default-0", model.Endpoint("n1", "10.0.0.1", 9000, "/run/0.sock"))
    far = snapshots.RingMember("default-1", model.Endpoint("n2", "10.0.0.2", 9001, "/run/1.sock"))
    bare = snapshots.RingMember("default-2", model.Endpoint("n1", "10.0.0.1", 9002))
    addresses = [entry["endpoint"]["address"] for entry in endpoints(near, far, bare)]
    assert addresses == [
        {"pipe": {"path": "/run/0.sock"}},
        {"socket_address": {"address": "10.0.0.2", "port_value": 9001}},
        {"socket_address": {"address": "10.0.0.1", "port_value": 9002}},
    ]


async def test_the_rings_key_is_the_workers_id_on_every_node() -> None:
    member_of = snapshots.RingMember(
        "default-0", model.Endpoint("n1", "10.0.0.1", 9000, "/run/0.sock")
    )
    keys = {
        endpoints(member_of, node=node)[0]["metadata"]["filter_metadata"]["envoy.lb"]["hash_key"]
        for node in ("n1", "n2")
    }
    assert keys == {"default-0"}


async def test_a_member_that_is_not_ready_stays_a_member() -> None:
    states = [
        entry["health_status"]
        for entry in endpoints(member("/run", "b"), member("/run", "a", is_ready=False))
    ]
    assert states == ["UNHEALTHY", "HEALTHY"]


async def test_an_llm_has_the_same_replicas_for_sessions_and_for_all_others() -> None:
    llm = snapshots.LlmRoute(
        "tiny",
        ("tiny", "lora"),
        (member("/run", "tiny/1"), member("/run", "tiny/0", is_ready=False)),
    )
    snap = snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {}, llms=(llm,))
    assigned: Any = clusters.members(snap, LAYOUT)
    assert list(assigned) == ["llm-tiny", "sticky-tiny", "controller"]
    assert assigned["llm-tiny"]["endpoints"] == assigned["sticky-tiny"]["endpoints"]
    assert [
        entry["health_status"] for entry in assigned["llm-tiny"]["endpoints"][0]["lb_endpoints"]
    ] == ["UNHEALTHY", "HEALTHY"]
    names = [cluster["name"] for cluster in clusters.clusters(snap, LAYOUT)]
    assert names == ["llm-tiny", "sticky-tiny", "controller", "node-http", "node-grpc"]


async def homes(mesh: conftest.Mesh) -> Any:
    answers = await asyncio.gather(*(mesh.call(first_field(name.encode())) for name in NAMES))
    return dict(zip(NAMES, (answer["by"] for answer in answers), strict=True))


async def test_envoys_ring_is_ours(mesh: conftest.Mesh) -> None:
    three = (
        member(mesh.run_dir, "big-0"),
        member(mesh.run_dir, "default-1"),
        member(mesh.run_dir, "default-0"),
    )
    ring = hash_ring.HashRing(["default-0", "default-1", "big-0"])
    await mesh.gateway.apply(replace(mesh.snapshot, pools={"default": three}, routes={}))
    await settled(mesh, "default", 3)
    assert await homes(mesh) == {name: ring.home(name) for name in NAMES}
    rest = (replace(three[0], ready=False), *three[1:])
    await mesh.gateway.apply(replace(mesh.snapshot, pools={"default": rest}, routes={}))
    await settled(mesh, "default", 2)
    two = hash_ring.HashRing(["default-0", "default-1"])
    assert await homes(mesh) == {name: two.home(name) for name in NAMES}


async def test_envoys_ring_has_as_many_points_a_worker_as_ours(mesh: conftest.Mesh) -> None:
    least, most = (
        f"cluster.pool-default.ring_hash_lb.{which}_hashes_per_host" for which in ("min", "max")
    )
    for names in (["big-0"], ["big-0", "default-0"], ["big-0", "default-0", "default-1"]):
        members = tuple(member(mesh.run_dir, name) for name in names)
        await mesh.gateway.apply(replace(mesh.snapshot, pools={"default": members}, routes={}))
        await settled(mesh, "default", len(names))
        stats = await mesh.gateway._envoy.admin.stats("ring_hash_lb")
        assert int(stats[least]) == int(stats[most]) == hash_ring.POINTS_PER_WORKER
        ring = hash_ring.HashRing(names)
        assert await homes(mesh) == {name: ring.home(name) for name in NAMES}


@pytest.mark.parametrize("names", [["default-0"], ["default-0", "default-1"]])
async def test_requests_are_tried_while_all_workers_seem_unhealthy(
    mesh: conftest.Mesh, names: list[str]
) -> None:
    members = tuple(member(mesh.run_dir, name, is_ready=False) for name in names)
    await mesh.gateway.apply(replace(mesh.snapshot, pools={"default": members}, routes={}))
    await settled(mesh, "default", 0)
    assert set((await homes(mesh)).values()) == set(names)


async def settled(mesh: conftest.Mesh, pool: str, healthy: int) -> None:
    name = f"cluster.pool-{pool}.membership_healthy"
    # Another process's, which announces nothing.
    while (await mesh.gateway._envoy.admin.stats(f"^{name}$"))[name] != str(healthy):  # noqa: ASYNC110
        await asyncio.sleep(support.PAUSE_S)


async def test_attempts_are_numbered_and_no_client_can_forge_the_number(
    mesh: conftest.Mesh,
) -> None:
    forged = {"x-envoy-attempt-count": "7"}
    first = (await mesh.http.get("/v2/models/iris", headers=forged)).json()
    assert first["headers"]["x-envoy-attempt-count"] == "1"
    called = await mesh.call(first_field(b"iris"), metadata=list(forged.items()))
    assert called["headers"]["x-envoy-attempt-count"] == "1"
    mesh.echoes[first["by"]].is_unavailable = True
    second = (await mesh.http.get("/v2/models/iris", headers=forged)).json()
    assert second["by"] != first["by"]
    assert int(second["headers"]["x-envoy-attempt-count"]) > 1


async def test_a_draining_workers_requests_go_to_the_next_one(mesh: conftest.Mesh) -> None:
    ring = hash_ring.HashRing(["default-0", "default-1"])
    mesh.echoes[ring.home("iris")].is_unavailable = True
    for _ in range(20):
        assert (await mesh.call(first_field(b"iris")))["by"] == ring.homes("iris", 2)[1]
    answer = await mesh.http.post("/v2/models/iris/infer", content=b"{}")
    assert answer.json()["by"] == ring.homes("iris", 2)[1]


async def test_without_a_worker_the_refusal_has_a_reason(mesh: conftest.Mesh) -> None:
    for server in mesh.echoes.values():
        server.is_unavailable = True
    assert (await mesh.fault(first_field(b"iris")))[0] is grpc.StatusCode.UNAVAILABLE
    assert (await mesh.http.get("/v2/models/iris")).status_code == 503
    await mesh.gateway.apply(
        replace(mesh.snapshot, pools={"default": ()}, routes={}, controller=None)
    )
    code, reason = await mesh.fault(first_field(b"iris"))
    assert (code, reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "nobody can answer this now: no healthy upstream",
    )
    for path in ("/v2/models/iris", "/mesh/v1/status"):
        answer = await mesh.http.get(path)
        assert (answer.status_code, answer.json()) == (
            503,
            {"error": "nobody can answer this now: no healthy upstream"},
        )


async def test_when_all_seem_unready_requests_are_tried_all_the_same(mesh: conftest.Mesh) -> None:
    pool = tuple(replace(worker, ready=False) for worker in mesh.snapshot.pools["default"])
    await mesh.gateway.apply(replace(mesh.snapshot, pools={"default": pool}, routes={}))
    await settled(mesh, "default", 0)
    assert (await mesh.call(first_field(b"iris")))["by"] in {"default-0", "default-1"}


async def test_a_killed_workers_requests_are_answered_by_another(mesh: conftest.Mesh) -> None:
    path = f"{mesh.run_dir}/doomed.sock"
    doomed = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.gateway.echo", path, "doomed"
    )
    try:
        await support.wait_until_async(Path(path).exists, what="the doomed worker listens")
        pool = (*mesh.snapshot.pools["default"], member(mesh.run_dir, "doomed"))
        await mesh.gateway.apply(replace(mesh.snapshot, pools={"default": pool}, routes={}))
        await settled(mesh, "default", 3)
        before = await homes(mesh)
        calls = [
            tasks.spawn(mesh.call(first_field(name.encode())), "call", is_awaited=True)
            for name in NAMES
        ]
        await asyncio.sleep(0)
        doomed.send_signal(signal.SIGKILL)
        calls += [
            tasks.spawn(mesh.call(first_field(name.encode())), "call", is_awaited=True)
            for name in NAMES
        ]
        after = [answer["by"] for answer in await asyncio.gather(*calls)]
    finally:
        if doomed.returncode is None:
            doomed.send_signal(signal.SIGKILL)
        await doomed.wait()
    assert "doomed" in before.values()
    assert len(after) == 2 * len(NAMES)
    assert "doomed" not in (await homes(mesh)).values()


async def test_a_restarted_worker_is_used_again(mesh: conftest.Mesh) -> None:
    gone = replace(
        mesh.snapshot,
        pools={"default": (mesh.snapshot.pools["default"][0], member(mesh.run_dir, "late"))},
        routes={},
    )
    await mesh.gateway.apply(gone)
    await settled(mesh, "default", 1)
    os.link(f"{mesh.run_dir}/default-1.sock", f"{mesh.run_dir}/late.sock")
    await settled(mesh, "default", 2)
    name = next(
        name for name in NAMES if hash_ring.HashRing(["default-0", "late"]).home(name) == "late"
    )
    assert (await mesh.call(first_field(name.encode())))["by"] == "default-1"
