from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

import meshserve
from meshserve import errors
from tests.client import server

ROWS = np.array([[1.5, 2], [3, 4]], np.float32)


@pytest.fixture
async def client(endpoint: str) -> AsyncIterator[meshserve.AsyncClient]:
    async with meshserve.AsyncClient(endpoint, api_key="secret") as connected:
        yield connected


async def test_predictions_run_together(client: meshserve.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.predict("echo", ROWS * number) for number in range(20)))
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, ROWS * number)


async def test_several_outputs_come_by_name(client: meshserve.AsyncClient) -> None:
    answer = await client.predict("pair", {"a": ROWS, "b": [[1, 2]]})
    assert answer["d"].tolist() == [[1, 2]]


async def test_the_key_goes_with_every_call(
    client: meshserve.AsyncClient, inference: server.Inference
) -> None:
    await client.predict("echo", ROWS)
    assert [metadata["authorization"] for _, _, metadata in inference.seen] == ["Bearer secret"] * 2


async def test_metadata_readiness_and_models(client: meshserve.AsyncClient) -> None:
    assert (await client.metadata("echo")).inputs[0].name == "x"
    assert await client.is_ready("echo")
    assert not await client.is_ready("missing")
    assert [listed.name for listed in await client.models()] == ["echo"]


async def test_errors_are_meshserves() -> None:
    failing = server.Failing(grpc.StatusCode.FAILED_PRECONDITION, "corrupt file", retry_after_s=0.5)
    with server.serving(failing) as where:
        async with meshserve.AsyncClient(where) as client:
            with pytest.raises(errors.LoadFailed, match="corrupt file") as caught:
                await client.predict("echo", ROWS)
    assert caught.value.retry_after_s == 0.5


async def test_a_deadline_is_kept() -> None:
    with server.serving(server.Slow()) as where:
        async with meshserve.AsyncClient(where) as client:
            with pytest.raises(errors.DeadlineExceeded):
                await client.predict("echo", ROWS, timeout_s=0.05)
