"""Bodies that never come end, others' requests go on meanwhile, and slow answers are not cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import httpx
import pytest
import pytest_asyncio

from meshserve import tasks
from meshserve.gateway.envoy import listener
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb
from tests import support
from tests.gateway import conftest, engines
from tests.gateway.conftest import INFER, first_field

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

SLOW_BODIES = 1000
TIMEOUT_S = 1
HEAD = (
    b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"content-length: 1000\r\n\r\n{"
)


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(run_dir: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[conftest.Mesh]:
    """A gateway that waits for the whole of a request for a second."""
    monkeypatch.setattr(listener, "REQUEST_TIMEOUT_S", TIMEOUT_S)
    async with engines.running_llms(run_dir) as started:
        yield started


async def begin(listen: str) -> bytes:
    """Send a request but for the rest of its body; return the answer."""
    reader, writer = await asyncio.open_connection(*listen.rsplit(":", 1))
    writer.write(HEAD)
    answer = await reader.read()
    writer.close()
    return answer


async def drip(listen: str) -> None:
    """Send a request's body byte by byte until the connection ends."""
    reader, writer = await asyncio.open_connection(*listen.rsplit(":", 1))
    writer.write(HEAD)
    answer = tasks.spawn(reader.read(), "answer", is_awaited=True)
    # What is sent when Envoy has just closed is answered by a reset, which may take the answer.
    with contextlib.suppress(ConnectionError):
        while not answer.done():
            writer.write(b" ")
            await asyncio.wait((answer,), timeout=0.2)
        await answer
    writer.close()


async def test_a_thousand_slow_bodies_end_and_other_requests_go_on(mesh: conftest.Mesh) -> None:
    listen, calls = mesh.snapshot.listen, range(SLOW_BODIES)
    silent = [tasks.spawn(begin(listen), "body", is_awaited=True) for _ in calls]
    dripping = [tasks.spawn(drip(listen), "body", is_awaited=True) for _ in range(20)]
    answered = 0
    while not all(body.done() for body in (*silent, *dripping)):
        assert (await mesh.call(first_field(b"iris")))["by"].startswith("default")
        answered += 1
    await asyncio.gather(*dripping)
    answers = await asyncio.gather(*silent)
    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert all(b"the request did not come whole" in answer for answer in answers)
    assert answered > 0


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_call_whose_message_does_not_end_is_ended(
    mesh: conftest.Mesh, compression: grpc.Compression
) -> None:
    call = mesh.channel.stream_unary(INFER)(compression=compression, timeout=60)
    await call.write(first_field(b"iris"))
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await call.details() == listener.INCOMPLETE_MESSAGE


async def test_answers_may_take_far_longer_than_requests(mesh: conftest.Mesh) -> None:
    """A slow prediction, a held request for an LLM, and a stream whose client thinks."""
    slow = mesh.channel.unary_unary(INFER)(first_field(b"iris"), metadata=[("x-say", "hang")])
    silent = mesh.channel.stream_stream(
        paths.MODEL_STREAM_INFER,
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )(metadata=[("x-say", "infer")])
    held = tasks.spawn(engines.chat(mesh, "cold"), "held", is_awaited=True)
    watched = mesh.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    assert await watched.read() is not grpc.aio.EOF
    await support.wait_until_async(lambda: len(mesh.echoes["hold"].waiting) == 1)
    await asyncio.sleep(4 * TIMEOUT_S)
    assert not any(call.done() for call in (slow, silent, held, watched))
    await silent.write(pb.ModelInferRequest(model_name="iris"))
    assert (await silent.read()).infer_response.model_name
    mesh.echoes["hold"].turn_away()
    refused: httpx.Response = await held
    assert refused.status_code == 503
