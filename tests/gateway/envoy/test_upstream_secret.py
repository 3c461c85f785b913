"""The mesh's secret on its way from a real Envoy to the servers behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from meshserve import tasks
from meshserve.core.values import model, snapshots
from meshserve.gateway.envoy import clusters, gateway_paths, upstream_secret
from meshserve.protocol import first_byte, handler_server, sockets
from tests import support
from tests.gateway import conftest, echo, engines, frame_server
from tests.gateway.conftest import first_field

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

SECRET = "of-this-mesh"


@pytest.fixture(params=["http", "frames"])
def way(request: pytest.FixtureRequest) -> str:
    """The folder of the module in C, or none: see `conftest.running`."""
    return str(request.getfixturevalue("module_dir")) if request.param == "frames" else ""


@pytest_asyncio.fixture(loop_scope="module")
async def guarded_mesh(run_dir: str, way: str) -> AsyncIterator[conftest.Mesh]:
    """A gateway whose servers refuse whoever does not send the secret."""
    async with conftest.running(run_dir, SECRET, way) as started:
        yield started


async def test_rest_and_grpc_bring_the_secret_and_clients_never_see_it(
    guarded_mesh: conftest.Mesh,
) -> None:
    picture = await guarded_mesh.call(first_field(b"a"))
    assert "x-mesh-secret" not in picture["headers"]
    for path in ("/v2/models/a/infer", "/v2/models/huge/infer", "/mesh/v1/status"):
        answer = await guarded_mesh.http.get(path)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("x-mesh-")]
        assert SECRET not in answer.text


async def test_a_secret_of_a_clients_own_changes_nothing(guarded_mesh: conftest.Mesh) -> None:
    for value in ("", "wrong", SECRET):
        answer = await guarded_mesh.http.get("/v2/models/a", headers={"x-mesh-secret": value})
        assert answer.status_code == 200


async def test_health_checks_and_metrics_bring_the_secret(guarded_mesh: conftest.Mesh) -> None:
    admin = guarded_mesh.gateway._envoy.admin
    prefix = "cluster.pool-default."
    counts = dict.fromkeys(("health_check.success", "health_check.failure"), 0)
    async with asyncio.timeout(60):
        while counts["health_check.success"] < 4:
            stats = await admin.stats(f"^{prefix}health_check")
            counts = {name: int(stats.get(prefix + name, "0")) for name in counts}
    assert counts["health_check.failure"] == 0
    page = (await guarded_mesh.http.get("/metrics")).text
    assert "meshserve_scrape_failures_total{" not in page


async def test_held_requests_and_those_to_llms_bring_the_secret(run_dir: str) -> None:
    async with engines.running_llms(run_dir, SECRET) as mesh:
        for headers in ({}, {"x-session-id": "s"}):
            answer = await engines.chat(mesh, "tiny", headers=headers)
            assert answer.json()["by"].startswith("tiny/")
            assert SECRET not in answer.text
        asked = tasks.spawn(engines.chat(mesh, "cold"), "chat", is_awaited=True)
        hold = mesh.echoes["hold"]
        await support.wait_until_async(lambda: hold.waiting, 60, "the controller was asked")
        hold.turn_away()
        assert (await asked).json()["error"]["message"] == "full"


async def test_a_worker_of_another_node_is_asked_with_the_secret_over_tcp(
    run_dir: str, way: str
) -> None:
    handler = frame_server.AsgiHandler(echo.Echo("far-0"))
    listeners = [sockets.tcp_socket("127.0.0.1")]
    served = handler_server.HandlerServer(handler, listeners, first_byte.maker(SECRET))
    await served.start()
    # A path that is of the other node.
    endpoint = model.Endpoint("n2", "127.0.0.1", served.port, f"{run_dir}/default-0.sock")
    far = (snapshots.RingMember("far-0", endpoint),)
    async with conftest.running(run_dir, SECRET, way, pools={"default": far}, routes={}) as mesh:
        assert (await mesh.call(first_field(b"a")))["by"] == "far-0"
        assert (await mesh.http.get("/v2/models/a/infer")).json()["by"] == "far-0"
        page = (await mesh.http.get("/metrics")).text
        assert "meshserve_scrape_failures_total{" not in page
        async with httpx.AsyncClient() as stranger:
            answer = await stranger.get(f"http://127.0.0.1:{served.port}/v2/models/a/infer")
        assert answer.status_code == 401
    await served.stop()


async def test_only_servers_of_the_mesh_get_the_secret() -> None:
    snap = snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {"default": ()})
    plain = clusters.clusters(snap, gateway_paths.GatewayPaths("/run"))
    assert upstream_secret.add(plain, "") == plain
    with_secret = {
        cluster["name"] for cluster in upstream_secret.add(plain, SECRET) if SECRET in str(cluster)
    }
    assert with_secret == {"pool-default", "busy-default", "controller"}
