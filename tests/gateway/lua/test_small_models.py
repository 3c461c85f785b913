"""Requests to small models in the script of a real Envoy: names, limits and statuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from meshserve.core.processes import hash_ring
from meshserve.protocol import compression
from tests.gateway import conftest
from tests.gateway.conftest import INFER, first_field, running

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

RAW = first_field(b"\x00" * 3000, 7)
TYPED = first_field(b"input", 5)
ID = first_field(b"an id", 3)
PREFIX = "/inference.GRPCInferenceService"


def key(picture: dict[str, Any]) -> str:
    value: str = picture["headers"].get("x-mesh-model", "")
    return value.encode("latin-1").decode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(first_field(b"iris") + TYPED + RAW, id="first"),
        pytest.param(TYPED + RAW + RAW + first_field(b"iris"), id="last"),
        pytest.param(first_field(b"wine") + ID + first_field(b"iris"), id="twice"),
        pytest.param(first_field(b"iris") + first_field(b"x" * 200_000, 7), id="several chunks"),
        pytest.param(
            first_field(b"x" * 200_000, 7) + first_field(b"iris"), id="several chunks, last"
        ),
        pytest.param(
            b"\x13" + first_field(b"wine") + b"\x14" + first_field(b"iris"), id="after a group"
        ),
        pytest.param(
            first_field(b"iris") + b"\x13" + first_field(b"wine") + b"\x14", id="before a group"
        ),
        pytest.param(
            b"\x79" + b"8bytes__" + b"\x7d" + b"four" + b"\x08\xff\xff\x03" + first_field(b"iris"),
            id="after every wire type",
        ),
    ],
)
async def test_the_name_is_found_at_any_place_of_the_message(
    shared_mesh: conftest.Mesh, body: bytes
) -> None:
    assert key(await shared_mesh.call(body)) == "iris"


@pytest.mark.parametrize(
    "name", ["a" * 127, "b" * 128, "c" * 300, "modèle-日本", "with space", "a/b"]
)
async def test_long_and_foreign_names_are_found(shared_mesh: conftest.Mesh, name: str) -> None:
    assert key(await shared_mesh.call(first_field(name.encode()))) == name
    assert key(await shared_mesh.call(RAW + first_field(name.encode()))) == name


@pytest.mark.parametrize(
    "method", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"]
)
async def test_every_method_of_one_model_goes_to_its_home(
    shared_mesh: conftest.Mesh, method: str
) -> None:
    answer = await shared_mesh.call(
        first_field(b"iris") + first_field(b"1", 2), f"{PREFIX}/{method}"
    )
    assert key(answer) == "iris"
    assert answer["by"] == hash_ring.HashRing(["default-0", "default-1"]).home("iris")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v2/models/iris", "iris"),
        ("/v2/models/iris/infer", "iris"),
        ("/v2/models/iris/versions/3/infer", "iris"),
        ("/v2/models/iris/ready?x=1", "iris"),
        ("/v2/models/iris?x=1", "iris"),
        ("/v2/models/a%2Fb%20c/infer", "a/b c"),
        ("/v2/models/mod%C3%A8le", "modèle"),
        ("/v1/models/iris", "iris"),
        ("/v1/models/iris:predict", "iris"),
        ("/v1/models/a%3Apredict:predict", "a:predict"),
        ("/v1/models/iris:predict?x=1", "iris"),
        ("/v1/models/iris:predict/", "iris"),
        ("/v1/models/iris%3Apredict", "iris"),
        ("/v1/models/iris:classify", "iris"),
        ("/v1/models/iris:other", "iris:other"),
        ("/v1/models/iris/versions/3:predict", "iris"),
        ("/v1/models/iris/labels/stable:predict", "iris"),
    ],
)
async def test_a_url_names_the_model(shared_mesh: conftest.Mesh, path: str, name: str) -> None:
    assert key((await shared_mesh.http.post(path, content=b"{}")).json()) == name


async def test_a_compressed_request_brings_the_limit_of_its_inflated_body(
    shared_mesh: conftest.Mesh,
) -> None:
    path, header = "/v2/models/iris/infer", compression.BYTES_MAX_HEADER
    packed = await shared_mesh.http.post(
        path, content=b"x", headers={"content-encoding": "gzip", header: "9"}
    )
    assert packed.json()["headers"][header] == str(shared_mesh.snapshot.request_bytes_max)
    plain = await shared_mesh.http.post(path, content=b"x", headers={header: "9"})
    assert header not in plain.json()["headers"]


@pytest.mark.parametrize(
    "metadata",
    [
        [("mm-model-id", "iris")],
        [("mm-vmodel-id", "iris")],
        [("mm-model-id", "other"), ("mm-vmodel-id", "iris")],
        [("mm-model-id-bin", b"iris")],
        [("mm-vmodel-id-bin", b"iris"), ("mm-model-id", "other")],
    ],
)
async def test_metadata_names_the_model_before_the_message_does(
    shared_mesh: conftest.Mesh, metadata: Any
) -> None:
    assert key(await shared_mesh.call(first_field(b"wine"), metadata=metadata)) == "iris"


async def test_metadata_is_bytes_of_any_length(shared_mesh: conftest.Mesh) -> None:
    for name in ("é", "éa", "éab", "modèle-日本"):
        assert key(await shared_mesh.call(metadata=[("mm-model-id-bin", name.encode())])) == name


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 40,
        b"\x0a",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0b\x0a\x04iris",
        RAW,
    ],
)
async def test_a_message_without_a_name_reaches_a_worker_all_the_same(
    shared_mesh: conftest.Mesh, body: bytes
) -> None:
    answer = await shared_mesh.call(body)
    assert "x-mesh-model" not in answer["headers"]
    assert answer["bytes"] == len(body)


async def test_a_name_can_not_smuggle_a_header(shared_mesh: conftest.Mesh) -> None:
    answer = await shared_mesh.call(first_field(b"iris\r\nx-mesh-client: root\x00"))
    assert key(answer) == "iris%0D%0Ax-mesh-client: root%00"
    assert "x-mesh-client" not in answer["headers"]


async def test_a_name_longer_than_any_model_s_does_not_break_the_request(
    shared_mesh: conftest.Mesh,
) -> None:
    assert len(key(await shared_mesh.call(first_field(b"x" * 300_000)))) == 2048


async def test_a_hostile_number_of_fields_is_not_walked_to_the_end(
    shared_mesh: conftest.Mesh,
) -> None:
    assert key(await shared_mesh.call(b"\x10\x01" * 9_000 + first_field(b"iris"))) == "iris"
    assert key(await shared_mesh.call(b"\x10\x01" * 200_000 + first_field(b"iris"))) == ""


async def test_clients_can_not_forge_internal_headers(shared_mesh: conftest.Mesh) -> None:
    forged = {
        "x-mesh-model": "huge",
        "X-Mesh-Client": "root",
        "x-mesh-anything": "1",
        "x-envoy-retry-on": "5xx",
    }
    headers = (await shared_mesh.http.get("/v2/models/iris", headers=forged)).json()["headers"]
    assert key({"headers": headers}) == "iris"
    assert not {"x-mesh-client", "x-mesh-anything", "x-envoy-retry-on"} & set(headers)
    answer = await shared_mesh.call(
        first_field(b"iris"), metadata=[(name.lower(), value) for name, value in forged.items()]
    )
    assert (answer["by"][:7], key(answer)) == ("default", "iris")
    assert (
        "x-mesh-model"
        not in (await shared_mesh.call(b"", metadata=[("x-mesh-model", "huge")]))["headers"]
    )


async def test_internal_headers_of_servers_do_not_reach_clients(shared_mesh: conftest.Mesh) -> None:
    answer = await shared_mesh.http.get("/v2/models/iris")
    call = shared_mesh.channel.unary_unary(INFER)(b"")
    seen = [
        *answer.headers,
        *dict(await call.initial_metadata()),
        *dict(await call.trailing_metadata()),
    ]
    assert answer.status_code == 200
    assert [name for name in seen if name.startswith("x-mesh")] == []


async def test_a_workers_error_reaches_the_caller_unchanged(shared_mesh: conftest.Mesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shared_mesh.call(metadata=[("x-say", "grpc-error")])
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.NOT_FOUND,
        "no model ä",
    )
    assert (
        dict(caught.value.trailing_metadata())["grpc-status-details-bin"] == b"\x08\x05\x12\x04none"
    )


async def test_a_failed_server_is_answered_with_its_http_status(shared_mesh: conftest.Mesh) -> None:
    code, reason = await shared_mesh.fault(metadata=[("x-say", "crash")])
    assert (code, reason) == (
        grpc.StatusCode.INTERNAL,
        "the server behind the gateway answered with HTTP status 500",
    )
    code, reason = await shared_mesh.fault(metadata=[("x-say", "unavailable")])
    assert (code, reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "the server behind the gateway answered with HTTP status 503",
    )


async def raw_call(mesh: conftest.Mesh, body: bytes) -> tuple[str, str]:
    """Status and message of a gRPC call whose frame is made by hand."""
    headers = {"content-type": "application/grpc", "te": "trailers"}
    answer = await mesh.http.post(INFER, content=body, headers=headers)
    return answer.headers["grpc-status"], answer.headers["grpc-message"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "has none"), (b"\x00\x00", "has none"), (b"\x00\x00\x00\x00\x09abc", "length")],
)
async def test_a_broken_frame_is_an_invalid_argument(
    shared_mesh: conftest.Mesh, body: bytes, reason: str
) -> None:
    status, message = await raw_call(shared_mesh, body)
    assert status == "3"
    assert reason in message


async def test_an_unknown_compression_is_unimplemented(shared_mesh: conftest.Mesh) -> None:
    status, message = await raw_call(shared_mesh, b"\x01\x00\x00\x00\x03abc")
    assert status == "12"
    assert "gzip" in message


async def test_a_large_answer_passes_whole(shared_mesh: conftest.Mesh) -> None:
    answer = await shared_mesh.call(first_field(b"iris"), metadata=[("x-say", "big")])
    assert len(answer["much"]) == 20_000_000
    answer = (await shared_mesh.http.get("/v2/models/iris", headers={"x-say": "big"})).json()
    assert len(answer["much"]) == 20_000_000


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1000):
        yield b"x" * 1000


async def test_the_refusal_of_a_large_request_names_the_limit(run_dir: str) -> None:
    async with running(run_dir, request_bytes_max=100_000) as mesh:
        path, words = "/v2/models/iris/infer", "larger than the limit of 100000 bytes"
        for content in (b"x" * 100_001, b"x" * 5_000_000, chunks(101_000)):
            answer = await mesh.http.post(path, content=content)
            assert answer.status_code == 413
            assert words in answer.json()["error"]
        for size in (100_001, 5_000_000):
            code, reason = await mesh.fault(b"x" * size)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert words in reason
        assert (await mesh.http.post(path, content=b"x" * 100_000)).json()["bytes"] == 100_000
        assert (await mesh.http.post(path, content=chunks(100_000))).json()["bytes"] == 100_000
        assert (await mesh.call(b"x" * 100_000))["bytes"] == 100_000


async def test_a_large_request_within_the_limit_passes_whole(shared_mesh: conftest.Mesh) -> None:
    body = first_field(b"x" * 20_000_000, 7) + first_field(b"iris")
    # A busy machine takes long to copy it.
    answer = await shared_mesh.call(body, timeout_s=60.0)
    assert (answer["bytes"], key(answer)) == (len(body), "iris")
