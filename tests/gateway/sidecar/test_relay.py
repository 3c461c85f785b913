"""Streams of inferences, and compressed calls, both relayed by the sidecar."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from meshserve.gateway.sidecar import relay
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc
from tests import support
from tests.gateway import conftest
from tests.gateway.conftest import INFER, running

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

INFERRING = (("x-say", "infer"),)


def stream(
    mesh: conftest.Mesh, requests: Any, metadata: Any = INFERRING, timeout_s: float = 20
) -> Any:
    make_stub: Any = inference_pb2_grpc.GRPCInferenceServiceStub
    return make_stub(mesh.channel).ModelStreamInfer(requests, metadata=metadata, timeout=timeout_s)


def numbered(count: int) -> list[pb.ModelInferRequest]:
    return [
        pb.ModelInferRequest(model_name=f"model-{number}", id=str(number))
        for number in range(count)
    ]


async def test_answers_come_in_the_order_of_requests(shared_mesh: conftest.Mesh) -> None:
    elements = [element async for element in stream(shared_mesh, iter(numbered(200)))]
    assert [element.infer_response.model_name for element in elements] == [
        f"model-{number}" for number in range(200)
    ]
    assert {element.error_message for element in elements} == {""}


async def test_several_requests_are_under_way_at_a_time(shared_mesh: conftest.Mesh) -> None:
    began_s = time.monotonic()
    elements = [
        element
        async for element in stream(shared_mesh, iter(numbered(20)), [("x-say", "slow-infer")])
    ]
    assert len(elements) == 20
    assert time.monotonic() - began_s < 15


async def test_an_answer_comes_before_the_stream_ends(shared_mesh: conftest.Mesh) -> None:
    call = stream(shared_mesh, None)
    for request in numbered(3):
        await call.write(request)
        assert (await call.read()).infer_response.model_name == request.model_name
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_failed_request_is_an_element_and_the_stream_goes_on(
    shared_mesh: conftest.Mesh,
) -> None:
    requests = numbered(3)
    elements = [
        element async for element in stream(shared_mesh, iter(requests), [("x-say", "grpc-error")])
    ]
    assert [element.error_message for element in elements] == ["no model ä"] * 3
    assert [element.infer_response.id for element in elements] == ["0", "1", "2"]


async def test_the_final_answer_is_marked_on_request(shared_mesh: conftest.Mesh) -> None:
    request = pb.ModelInferRequest(model_name="iris")
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    elements = [element async for element in stream(shared_mesh, iter([request, *numbered(1)]))]
    flags = [
        element.infer_response.parameters["triton_final_response"].bool_param
        for element in elements
    ]
    assert flags == [True, False]


async def test_metadata_and_deadline_are_relayed(shared_mesh: conftest.Mesh) -> None:
    metadata = [
        *INFERRING,
        ("mm-model-id", "huge"),
        ("x-own", "1"),
        ("own-bin", b"\x00\xff"),
        ("x-mesh-client", "forged"),
    ]
    elements = [
        element async for element in stream(shared_mesh, iter(numbered(1)), metadata, timeout_s=20)
    ]
    assert [element.infer_response.id for element in elements] == ["big-0"]
    headers = shared_mesh.echoes["big-0"].seen[-1]["headers"]
    assert (headers["x-own"], headers["own-bin"]) == ("1", "AP8")
    assert "x-mesh-client" not in headers
    assert 0 < int(headers["grpc-timeout"].rstrip("m")) <= 21_000


async def test_a_stream_ends_at_its_deadline(shared_mesh: conftest.Mesh) -> None:
    call = stream(shared_mesh, None, timeout_s=0.3)
    await call.write(numbered(1)[0])
    assert (await call.read()).infer_response.model_name == "model-0"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_cancelled_stream_cancels_its_calls(mesh: conftest.Mesh) -> None:
    call = stream(mesh, iter(numbered(5)), [("x-say", "hang")])
    await support.wait_until_async(
        lambda: sum(len(server.seen) for server in mesh.echoes.values()) == 5,
        what="all requests arrive",
    )
    call.cancel()
    await support.wait_until_async(
        lambda: sum(server.abandoned for server in mesh.echoes.values()) == 5,
        what="all are given up",
    )


async def test_a_message_over_the_limit_is_an_element_like_any_other(run_dir: str) -> None:
    async with running(run_dir, request_bytes_max=10_000) as mesh:
        big = pb.ModelInferRequest(model_name="iris", raw_input_contents=[b"x" * 20_000])
        elements = [element async for element in stream(mesh, iter([big, *numbered(1)]))]
        assert "larger than the limit of 10000 bytes" in elements[0].error_message
        assert elements[1].infer_response.model_name == "model-0"


async def test_a_relayed_call_fails_with_the_workers_error(shared_mesh: conftest.Mesh) -> None:
    call = shared_mesh.channel.unary_unary(INFER)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(
            b"x" * 100, compression=grpc.Compression.Gzip, metadata=[("x-say", "grpc-error")]
        )
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.NOT_FOUND,
        "no model ä",
    )
    assert (
        dict(caught.value.trailing_metadata())["grpc-status-details-bin"] == b"\x08\x05\x12\x04none"
    )


@pytest.mark.parametrize(
    ("listen", "target"),
    [
        ("0.0.0.0:80", "127.0.0.1:80"),
        (":80", "127.0.0.1:80"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
    ],
)
async def test_the_relay_reaches_the_gateways_own_port(listen: str, target: str) -> None:
    assert relay.own_address(listen) == target


async def test_no_task_is_left_behind(shared_mesh: conftest.Mesh) -> None:
    before = len(asyncio.all_tasks())
    for _ in range(3):
        assert len([element async for element in stream(shared_mesh, iter(numbered(10)))]) == 10
    await support.wait_until_async(
        lambda: len(asyncio.all_tasks()) <= before, what="the streams' tasks end"
    )
