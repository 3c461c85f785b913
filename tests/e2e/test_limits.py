"""Full queues and expired deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from meshserve import tasks
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests import support
from tests.e2e import asking, conftest, running

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="function")]

QUEUE_MAX = 4


def request(model: str, seconds: float, name: str) -> pb.ModelInferRequest:
    """Return a gRPC request for a sleeping model."""
    inputs = [
        pb.ModelInferRequest.InferInputTensor(name="seconds", datatype="FP64", shape=[1]),
        pb.ModelInferRequest.InferInputTensor(name="name", datatype="BYTES", shape=[1]),
    ]
    text = name.encode()
    raws = [np.array([seconds]).tobytes(), len(text).to_bytes(4, "little") + text]
    return pb.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raws)


def body(seconds: float, name: str) -> dict[str, Any]:
    """Return a REST request for a sleeping model."""
    return {
        "inputs": [
            {"name": "seconds", "datatype": "FP64", "shape": [1], "data": [seconds]},
            {"name": "name", "datatype": "BYTES", "shape": [1], "data": [name]},
        ]
    }


async def outcome(call: Any) -> Any:
    """Return `OK`, or the error of a gRPC call."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    return "OK"


@pytest.fixture
async def stub(mesh: running.Mesh) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(mesh.listen) as channel:
        yield rpc.GRPCInferenceServiceStub(channel)


@pytest.fixture
async def http(mesh: running.Mesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://{mesh.listen}", timeout=60, limits=httpx.Limits(max_connections=100)
    ) as client:
        yield client


async def test_a_full_queue_refuses_at_once_with_a_retry_delay(
    stub: Any, models: conftest.Models
) -> None:
    await stub.ModelInfer(request("sleeper-in-tight", 0, "warm"))
    first = tasks.spawn(
        outcome(stub.ModelInfer(request("sleeper-in-tight", 1.5, "first"))),
        "outcome",
        is_awaited=True,
    )
    await support.wait_until_async(
        lambda: "b'first'" in models.noted("sleeper-in-tight"), 20, "the first one runs"
    )
    others = await asyncio.gather(
        *(
            outcome(stub.ModelInfer(request("sleeper-in-tight", 0, f"{number}")))
            for number in range(12)
        )
    )
    refused = [refusal for refusal in others if refusal != "OK"]
    assert len(refused) == 12 - QUEUE_MAX
    assert {refusal.code() for refusal in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert "4 requests wait for this model" in refused[0].details()
    assert (asking.retry_s(refused[0]) or 0) >= 1
    assert await first == "OK"


async def test_a_full_queue_is_429_over_rest(http: Any, stub: Any) -> None:
    await stub.ModelInfer(request("sleeper-in-tight", 0, "warm"))
    path = "/v2/models/sleeper-in-tight/infer"
    answers = await asyncio.gather(
        *(http.post(path, json=body(0.5, f"rest{number}")) for number in range(QUEUE_MAX + 6))
    )
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) - len(refused) == QUEUE_MAX + 1
    assert {answer.status_code for answer in refused} == {429}
    assert int(refused[0].headers["retry-after"]) >= 1
    assert "requests wait for this model" in refused[0].json()["error"]


async def test_an_expired_request_is_an_error_and_never_computed(
    models: conftest.Models, stub: Any, http: Any
) -> None:
    await stub.ModelInfer(request("sleeper", 0, "warm"))
    running = tasks.spawn(
        outcome(stub.ModelInfer(request("sleeper", 2.0, "long"))), "outcome", is_awaited=True
    )
    await support.wait_until_async(
        lambda: "b'long'" in models.noted("sleeper"), 20, "the long one runs"
    )
    late = await outcome(stub.ModelInfer(request("sleeper", 0, "too-late"), timeout=0.4))
    over_rest = await http.post(
        "/v2/models/sleeper/infer", json=body(0, "too-late"), headers={"grpc-timeout": "300m"}
    )
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert over_rest.status_code == 504
    assert "Deadline Exceeded" in over_rest.json()["error"]
    assert await running == "OK"
    assert await outcome(stub.ModelInfer(request("sleeper", 0, "after"))) == "OK"
    assert not [line for line in models.noted("sleeper") if "too-late" in line]


async def test_triton_clients_see_the_deadline(mesh: running.Mesh) -> None:
    with (
        tritonclient.grpc.InferenceServerClient(mesh.listen) as client,
        pytest.raises(InferenceServerException) as caught,
    ):
        await asyncio.to_thread(
            client.infer, "sleeper", asking.sleeper(1.0, "in time"), client_timeout=0.3
        )
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


async def test_a_deadline_holds_while_a_model_loads(stub: Any, models: conftest.Models) -> None:
    errors = [
        await outcome(stub.ModelInfer(pb.ModelInferRequest(model_name="hangs-long"), timeout=0.4))
        for _ in range(3)
    ]
    assert {error.code() for error in errors} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert len(models.noted("hangs-long")) <= 1
