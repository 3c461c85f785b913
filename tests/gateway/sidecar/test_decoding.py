"""Messages that can't be decoded, sent to the sidecar."""

from __future__ import annotations

import grpc
import pytest

from meshserve.protocol.pb import inference_pb2 as pb
from tests.gateway import conftest

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

INFERENCE = "/inference.GRPCInferenceService"
GARBAGE = b"\xff\xff\xff"
METHODS = (
    f"{INFERENCE}/ServerLive",
    f"{INFERENCE}/ServerReady",
    f"{INFERENCE}/ServerMetadata",
    "/grpc.health.v1.Health/Check",
)


@pytest.mark.parametrize("method", METHODS)
async def test_an_undecodable_message_is_an_invalid_argument(
    shared_mesh: conftest.Mesh, method: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shared_mesh.channel.unary_unary(method)(GARBAGE, timeout=10)
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"the body is no request of {method}",
    )


async def test_an_undecodable_watch_is_an_invalid_argument(shared_mesh: conftest.Mesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shared_mesh.channel.unary_stream("/grpc.health.v1.Health/Watch")(
            GARBAGE, timeout=10
        ).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_garbage_in_a_stream_is_one_elements_error(shared_mesh: conftest.Mesh) -> None:
    call = shared_mesh.channel.stream_stream(
        f"{INFERENCE}/ModelStreamInfer", None, pb.ModelStreamInferResponse.FromString
    )
    elements = [element async for element in call(iter([GARBAGE, GARBAGE]), timeout=10)]
    assert [element.error_message for element in elements] == [
        "the element is not a ModelInferRequest"
    ] * 2
