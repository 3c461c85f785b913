"""Which server gets which request, in a real Envoy."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest

from meshserve.core.processes import hash_ring
from meshserve.core.values import snapshots
from meshserve.gateway.envoy import endpoints, routes
from meshserve.protocol import paths
from tests.gateway import conftest
from tests.gateway.conftest import INFER, first_field, member

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

PREFIX = "/inference.GRPCInferenceService"
HOME = hash_ring.HashRing(["default-0", "default-1"]).home


def text(snap: snapshots.GatewaySnapshot) -> str:
    return str(routes.table(snap))


async def test_equal_snapshots_give_equal_tables(shared_mesh: conftest.Mesh) -> None:
    snap = shared_mesh.snapshot
    assert text(snap) == text(replace(snap, routes=dict(snap.routes)))
    assert text(snap) != text(replace(snap, routes={"other": "big"}))


async def test_a_model_of_another_pool_is_found_by_every_path(shared_mesh: conftest.Mesh) -> None:
    assert (await shared_mesh.call(first_field(b"huge")))["by"] == "big-0"
    assert (await shared_mesh.call(metadata=[("mm-model-id", "huge")]))["by"] == "big-0"
    assert (await shared_mesh.call(first_field(b"huge"), f"{PREFIX}/ModelStatistics"))[
        "by"
    ] == "big-0"
    for path in ("/v2/models/huge/infer", "/v2/models/hug%65", "/v1/models/huge:predict"):
        assert (await shared_mesh.http.post(path)).json()["by"] == "big-0"


@pytest.mark.parametrize("name", ["iris", "hug", "hugeandmore", "Huge"])
async def test_models_without_a_route_go_to_the_default_pool(
    shared_mesh: conftest.Mesh, name: str
) -> None:
    assert (await shared_mesh.call(first_field(name.encode())))["by"] == HOME(name)
    assert (await shared_mesh.http.get(f"/v2/models/{name}")).json()["by"] == HOME(name)


@pytest.mark.parametrize(
    "path",
    [
        f"{PREFIX}/ModelStatistics",
        f"{PREFIX}/RepositoryIndex",
        f"{PREFIX}/RepositoryModelLoad",
        f"{PREFIX}/RepositoryModelUnload",
        f"{PREFIX}/SystemSharedMemoryStatus",
        f"{PREFIX}/CudaSharedMemoryRegister",
        f"{PREFIX}/TraceSetting",
        f"{PREFIX}/LogSettings",
        "/inference.model_repository.ModelRepositoryService/RepositoryIndex",
        "/mmesh.ModelMesh/registerModel",
    ],
)
async def test_the_controller_answers_calls_about_the_mesh(
    shared_mesh: conftest.Mesh, path: str
) -> None:
    answer = await shared_mesh.call(first_field(b"") + first_field(b"huge", 2), path)
    assert (answer["by"], answer["path"]) == ("controller", path)
    assert "x-mesh-model" not in answer["headers"]


async def test_the_controller_answers_loads_of_any_model(shared_mesh: conftest.Mesh) -> None:
    for path in (f"{PREFIX}/RepositoryModelLoad", "/mmesh.ModelMesh/ensureLoaded"):
        assert (await shared_mesh.call(first_field(b"huge"), path))["by"] == "controller"


PAGES = [
    "/v2/repository/index",
    "/v2/repository/models/huge/load",
    "/mesh/v1/models/huge?version=1",
    "/v2/models/stats",
]


@pytest.mark.parametrize("path", PAGES)
async def test_the_controller_answers_pages_about_the_mesh(
    shared_mesh: conftest.Mesh, path: str
) -> None:
    answer = (await shared_mesh.http.post(path, content=b"{}")).json()
    assert (answer["by"], answer["path"]) == ("controller", path.partition("?")[0])


@pytest.mark.parametrize(
    "path", [f"{PREFIX}/Nothing", f"{PREFIX}/ModelInferAndMore", "/nobody.Service/Method"]
)
async def test_an_unknown_method_is_unimplemented(shared_mesh: conftest.Mesh, path: str) -> None:
    code, reason = await shared_mesh.fault(first_field(b"huge"), path)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert path in reason


@pytest.mark.parametrize("path", ["/", "/v2", "/v2/", "/v2/health/ready/", "/healthz/"])
async def test_the_sidecars_pages_are_served_with_and_without_a_slash(
    shared_mesh: conftest.Mesh, path: str
) -> None:
    for method in ("GET", "HEAD"):
        assert (await shared_mesh.http.request(method, f"{path}?a=b")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/v2/models", "/v2/models/"])
async def test_the_controller_lists_models(shared_mesh: conftest.Mesh, path: str) -> None:
    assert (await shared_mesh.http.get(path)).json()["by"] == "controller"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/nothing/",
        "/v2/nothing",
        "/v2/modelss",
        "/healthzz",
        "/v1/modelss",
        "/metrics/x",
    ],
)
async def test_an_unknown_path_is_not_found(shared_mesh: conftest.Mesh, path: str) -> None:
    answer = await shared_mesh.http.get(f"{path}?a=b")
    assert answer.status_code == 404
    assert answer.json() == {"error": f"nothing is served under {path}"}


async def test_a_rest_request_to_a_grpc_path_is_not_found(shared_mesh: conftest.Mesh) -> None:
    assert (await shared_mesh.http.post(INFER, content=first_field(b"iris"))).status_code == 404


async def test_a_compressed_message_arrives_decompressed(shared_mesh: conftest.Mesh) -> None:
    body = first_field(b"huge") + first_field(b"x" * 1000, 7)
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        answer = await shared_mesh.channel.unary_unary(INFER)(
            body, compression=compression, metadata=[("mm-model-id", "huge")]
        )
        assert b'"by": "big-0"' in answer
        assert f'"bytes": {len(body)}'.encode() in answer
    call = shared_mesh.channel.unary_unary("/mmesh.ModelMesh/registerModel")
    assert b'"by": "controller"' in await call(body, compression=grpc.Compression.Gzip)


async def test_a_thousand_routes_are_taken_at_once(mesh: conftest.Mesh) -> None:
    names = {f"model-{number}": "big" for number in range(1000)}
    await mesh.gateway.apply(replace(mesh.snapshot, routes=names))
    assert (await mesh.call(first_field(b"model-999")))["by"] == "big-0"
    assert (await mesh.call(first_field(b"huge")))["by"] == HOME("huge")


async def test_pools_and_routes_change_without_closing_a_connection(mesh: conftest.Mesh) -> None:
    call = mesh.channel.unary_unary(INFER)(b"", metadata=[("x-say", "slow")])
    await mesh.call(b"")
    pools = {**mesh.snapshot.pools, "new": (member(mesh.run_dir, "big-0"),)}
    await mesh.gateway.apply(replace(mesh.snapshot, pools=pools, routes={"iris": "new"}))
    assert (await mesh.call(first_field(b"iris")))["by"] == "big-0"
    assert b'"by"' in await call
    await mesh.gateway.apply(replace(mesh.snapshot, routes={}))
    assert (await mesh.call(first_field(b"iris")))["by"] == HOME("iris")
    created = await mesh.gateway._envoy.admin.stats("^listener_manager.listener_(create|modif)")
    assert created == {
        "listener_manager.listener_modified": "0",
        # The port's, and one for any worker of each pool.
        "listener_manager.listener_create_success": str(1 + len(pools)),
        "listener_manager.listener_create_failure": "0",
    }


async def test_keys_are_not_in_the_listener(shared_mesh: conftest.Mesh) -> None:
    with_keys = replace(shared_mesh.snapshot, keys=(snapshots.ApiKey("bob", "secret"),))
    assert "secret" in text(with_keys)


@pytest.mark.slow
async def test_calls_to_the_sidecar_without_a_message_end(shared_mesh: conftest.Mesh) -> None:
    """No deadline comes with them."""
    ends = [
        shared_mesh.channel.stream_unary(path)(iter(())).code()
        for path in (paths.HEALTH_CHECK, *endpoints.QUICK_METHODS)
    ]
    async with asyncio.timeout(6 * endpoints.QUICK_TIMEOUT_S):
        codes = await asyncio.gather(*ends)
    assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED] * len(ends)


async def test_streams_of_the_sidecar_have_no_timeout() -> None:
    targets = endpoints.targets("pool-default")
    streams = [targets.exact[paths.MODEL_STREAM_INFER], targets.under[paths.HEALTH]]
    assert [target.timeout_s for target in streams] == [0, 0]


@pytest.mark.parametrize(
    ("path", "compression"),
    [
        (INFER, grpc.Compression.Gzip),
        (INFER, grpc.Compression.Deflate),
        ("/mmesh.ModelMesh/registerModel", grpc.Compression.Gzip),
        ("/grpc.health.v1.Health/Watch", grpc.Compression.NoCompression),
    ],
)
async def test_calls_that_only_the_sidecar_reads_are_refused_without_a_message(
    shared_mesh: conftest.Mesh, path: str, compression: grpc.Compression
) -> None:
    call = shared_mesh.channel.stream_unary(path)(iter(()), compression=compression, timeout=60)
    code, details = await call.code(), await call.details()
    assert (code, "has one message" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
