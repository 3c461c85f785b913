"""API keys: calls without one, with a client's, and with an admin's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import api_keys
from meshserve.protocol.pb import inference_pb2 as pb
from tests.gateway import conftest
from tests.gateway.conftest import INFER, first_field, running

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

KEYS = (
    snapshots.ApiKey("shop", "shop-key"),
    snapshots.ApiKey("ops", "ops-key", admin=True),
    snapshots.ApiKey("ops", "ops-reading-key"),
)
REGISTER = "/mmesh.ModelMesh/registerModel"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[conftest.Mesh]:
    async with running(str(tmp_path_factory.mktemp("gw")), keys=KEYS) as mesh:
        yield mesh


def bearer(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")]


async def test_without_keys_there_are_no_rules() -> None:
    assert [api_keys.rule(level, ()) for level in api_keys.AccessLevel] == [{}, {}, {}]


async def test_managing_needs_an_admins_key() -> None:
    keys = (snapshots.ApiKey("shop", "shop-key"),)
    rule: Any = api_keys.rule(api_keys.AccessLevel.ADMIN, keys)[api_keys.FILTER]
    assert rule["allowed_clients"]
    assert not set(rule["allowed_clients"]) & {entry["client"] for entry in rule["credentials"]}


@pytest.mark.parametrize("key", ["shop-key", "ops-key", "ops-reading-key"])
async def test_a_key_lets_its_client_predict(guarded: conftest.Mesh, key: str) -> None:
    client = key.partition("-")[0]
    schemes = [[("authorization", f"{scheme} {key}")] for scheme in ("bearer", "BEARER")]
    for metadata in (bearer(key), *schemes, [("x-api-key", key)]):
        headers = (
            await guarded.call(
                first_field(b"iris"), metadata=[*metadata, ("x-mesh-client", "forged")]
            )
        )["headers"]
        assert headers["x-mesh-client"] == client
        assert not {"authorization", "x-api-key"} & set(headers)
        answer = await guarded.http.get("/v2/models/iris", headers=dict(metadata))
        assert answer.json()["headers"]["x-mesh-client"] == client


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        bearer("wrong"),
        [("authorization", "Bearer")],
        [("x-api-key", "shop-keyy")],
        [("authorization", "Basic shop-key")],
    ],
)
async def test_without_a_valid_key_every_path_is_refused(
    guarded: conftest.Mesh, metadata: Any
) -> None:
    for path in (INFER, REGISTER, "/inference.GRPCInferenceService/ServerReady"):
        code, reason = await guarded.fault(first_field(b"iris"), path, metadata=metadata)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "API key" in reason
    for path in ("/v2/models/iris", "/v2/repository/index", "/mesh/v1/status", "/metrics", "/v2"):
        answer = await guarded.http.get(path, headers=dict(metadata))
        assert answer.status_code == 401
        assert "API key" in answer.json()["error"]


@pytest.mark.parametrize("key", ["shop-key", "ops-reading-key"])
async def test_only_an_admins_key_may_manage(guarded: conftest.Mesh, key: str) -> None:
    code, reason = await guarded.fault(b"", REGISTER, metadata=bearer(key))
    assert (code, reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "this API key may not manage the mesh",
    )
    for path in ("/v2/repository/index", "/mesh/v1/status"):
        answer = await guarded.http.get(path, headers={"x-api-key": key})
        assert (answer.status_code, answer.json()) == (
            403,
            {"error": "this API key may not manage the mesh"},
        )


async def test_an_admins_key_manages(guarded: conftest.Mesh) -> None:
    assert (await guarded.call(b"", REGISTER, metadata=bearer("ops-key")))["headers"][
        "x-mesh-client"
    ] == "ops"
    assert (await guarded.http.get("/mesh/v1/status", headers={"x-api-key": "ops-key"})).json()[
        "by"
    ] == "controller"


async def test_a_compressed_call_needs_its_key_too(guarded: conftest.Mesh) -> None:
    register = guarded.channel.unary_unary(REGISTER)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await register(b"x" * 100, compression=grpc.Compression.Gzip, metadata=bearer("shop-key"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert b'"controller"' in await register(
        b"x" * 100, compression=grpc.Compression.Gzip, metadata=bearer("ops-key")
    )


async def test_a_streams_key_is_used_for_its_messages(guarded: conftest.Mesh) -> None:
    stream = guarded.channel.stream_stream(
        STREAM, pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString
    )
    metadata = [*bearer("shop-key"), ("x-say", "infer")]
    elements = [
        element
        async for element in stream(
            iter([pb.ModelInferRequest(model_name="iris")]), metadata=metadata
        )
    ]
    assert [element.error_message for element in elements] == [""]
    assert (
        guarded.echoes[elements[0].infer_response.id].seen[-1]["headers"]["x-mesh-client"] == "shop"
    )


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_key(guarded: conftest.Mesh, path: str) -> None:
    assert (await guarded.http.get(path)).status_code == 200
    assert await guarded.channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"


async def test_keys_change_while_envoy_runs(mesh: conftest.Mesh) -> None:
    assert (await mesh.http.get("/v2/models/iris")).status_code == 200
    await mesh.gateway.apply(replace(mesh.snapshot, keys=KEYS))
    assert (await mesh.http.get("/v2/models/iris")).status_code == 401
    assert (
        await mesh.http.get("/v2/models/iris", headers={"x-api-key": "shop-key"})
    ).status_code == 200
    assert (await mesh.http.get("/nothing")).status_code == 404
    await mesh.gateway.apply(mesh.snapshot)
    assert (await mesh.http.get("/v2/models/iris")).status_code == 200
