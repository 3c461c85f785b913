"""Malformed requests cause no crash, no internal error and no growth of memory."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc.aio
import httpx
import numpy as np
import pytest

from tests.e2e import asking, mutation, running

pytestmark = [pytest.mark.edge, pytest.mark.timeout(900)]

SEED = 20_260
EACH = int(
    os.environ.get("MESHSERVE_FUZZ_EACH", "2000")
)  # random and as many mutated, over gRPC and again over REST
AT_ONCE = 16
TIMEOUT_S = 30.0
GROWTH_BYTES_MAX = 48 << 20
OURS = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


# A code of gRPC or HTTP, and the beginning of the message.
Outcome = tuple[grpc.StatusCode | int, str]
Outcomes = Counter[Outcome]
Ask = Callable[[str, bytes], Awaitable[tuple[Outcome, bool]]]
Failures = list[tuple[str, bytes, Outcome]]


async def run_all(calls: Iterable[tuple[str, bytes]], ask: Ask) -> tuple[Outcomes, Failures]:
    """Send every call, some at a time; return the outcomes and the calls with internal errors."""
    counts: Outcomes = Counter()
    wrong: Failures = []
    iterator = iter(calls)

    async def work() -> None:
        for where, body in iterator:
            what, is_ours = await ask(where, body)
            counts[what] += 1
            if is_ours:
                wrong.append((where, body, what))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return counts, wrong


async def over_grpc(mesh: running.Mesh, seed: int, calls: int) -> tuple[Outcomes, Failures]:
    async with grpc.aio.insecure_channel(mesh.listen) as channel:

        async def ask(path: str, body: bytes) -> tuple[Outcome, bool]:
            try:
                await channel.unary_unary(path)(body, timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                return (error.code(), error.details()[:60]), error.code() in OURS
            return (grpc.StatusCode.OK, ""), False

        return await run_all(mutation.grpc_calls(seed, calls), ask)


async def over_rest(mesh: running.Mesh, seed: int, calls: int) -> tuple[Outcomes, Failures]:
    async with httpx.AsyncClient(base_url=f"http://{mesh.listen}", timeout=TIMEOUT_S) as client:

        async def ask(where: str, body: bytes) -> tuple[Outcome, bool]:
            method, _, path = where.partition(" ")
            answer = await client.request(method, path, content=body)
            return (
                answer.status_code,
                answer.text[:60] if answer.is_error else "",
            ), answer.status_code >= 500

        return await run_all(mutation.rest_calls(seed, calls), ask)


def private_bytes(mesh: running.Mesh) -> dict[str, int]:
    return {worker["id"]: worker["private_bytes"] for worker in mesh.workers().values()}


async def test_malformed_requests_break_nothing(mesh: running.Mesh, triton: Any) -> None:
    await over_grpc(mesh, SEED, 60)
    await over_rest(mesh, SEED, 60)
    pids, before = mesh.pids(), private_bytes(mesh)
    answers, wrong = await over_grpc(mesh, SEED + 1, EACH)
    rest_answers, rest_wrong = await over_rest(mesh, SEED + 2, EACH)
    assert wrong == rest_wrong == []
    assert (sum(answers.values()), sum(rest_answers.values())) == (2 * EACH, 2 * EACH)
    assert {code for code, _ in answers} >= {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    }
    assert {code for code, _ in rest_answers} >= {200, 400, 404}
    assert mesh.pids() == pids
    grown = {worker: size - before[worker] for worker, size in private_bytes(mesh).items()}
    assert {worker: size for worker, size in grown.items() if size > GROWTH_BYTES_MAX} == {}
    rows = np.ones((1, 4), np.float32)
    assert triton.infer("doubled", [asking.over_grpc("x", rows, "FP32")]).as_numpy(
        "y"
    ).tolist() == [[2, 2, 2, 2]]


@pytest.fixture
def triton(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("over_grpc")
