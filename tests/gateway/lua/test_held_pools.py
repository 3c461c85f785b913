"""Requests for a pool without workers in the script of a real Envoy: they wait, or are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from meshserve import tasks
from meshserve.core.values import model, snapshots
from meshserve.protocol import paths
from tests import support
from tests.gateway import conftest, echo, engines
from tests.gateway.conftest import first_field

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

HUGE = first_field(b"huge")
REFUSAL = b'{"error":"no start: 100 %"}'
HEADERS = [
    (b"content-type", b"application/json"),
    (b"retry-after", b"7"),
    (paths.REASON_HEADER.encode(), b"no%20start%3A%20100%20%25"),
]


@pytest_asyncio.fixture(loop_scope="module")
async def sleeping(run_dir: str) -> AsyncIterator[conftest.Mesh]:
    """A gateway whose pool `big`, with the model `huge`, has no worker."""
    controller = engines.HoldServer("hold")
    endpoint = model.Endpoint("n1", "127.0.0.1", 1, f"{run_dir}/hold.sock")
    async with (
        echo.serving(controller, f"{run_dir}/hold.sock"),
        conftest.running(run_dir, controller=endpoint) as mesh,
    ):
        mesh.echoes["hold"] = controller
        awake = mesh.snapshot
        asleep = replace(awake, pools={**awake.pools, "big": ()}, held={"big": 60.0}, revision=1)
        await mesh.gateway.apply(asleep)
        yield mesh


def awake(mesh: conftest.Mesh) -> snapshots.GatewaySnapshot:
    return replace(mesh.snapshot, revision=2)


def later(call: Any) -> Any:
    return tasks.spawn(call, "call", is_awaited=True)


async def until_waiting(mesh: conftest.Mesh, count: int) -> None:
    await support.wait_until_async(
        lambda: len(mesh.echoes["hold"].waiting) == count, what=f"{count} wait"
    )


async def test_requests_of_both_protocols_wait_and_go_on(sleeping: conftest.Mesh) -> None:
    call = later(sleeping.call(HUGE, timeout_s=60.0))
    await until_waiting(sleeping, 1)
    body = b"x" * 300_000
    post = later(sleeping.http.post("/v2/models/huge/infer", content=body, timeout=60))
    await until_waiting(sleeping, 2)
    asked = [query for _, query in sleeping.echoes["hold"].asked]
    assert asked[0] == f"api=small&model=huge&bytes={len(HUGE) + 5}", "with its frame"
    assert asked[1] == f"api=small&model=huge&bytes={len(body)}"
    await sleeping.gateway.apply(awake(sleeping))
    assert not call.done()
    assert not post.done()
    for _ in range(2):
        sleeping.echoes["hold"].admit()
    assert (await call)["by"] == "big-0"
    seen = (await post).json()
    assert (seen["by"], seen["bytes"]) == ("big-0", len(body))
    await sleeping.call(HUGE)
    assert len(sleeping.echoes["hold"].asked) == 2, "a pool with a worker asks nobody"


async def test_a_pool_beside_it_asks_nobody(sleeping: conftest.Mesh) -> None:
    assert (await sleeping.call(first_field(b"iris")))["by"].startswith("default-")
    assert sleeping.echoes["hold"].asked == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, grpc.StatusCode.UNAVAILABLE), (404, grpc.StatusCode.NOT_FOUND)],
)
async def test_a_refusal_has_the_reason_in_each_protocol(
    sleeping: conftest.Mesh, status: int, code: grpc.StatusCode
) -> None:
    call = later(sleeping.fault(HUGE))
    await until_waiting(sleeping, 1)
    sleeping.echoes["hold"].waiting.pop(0).set_result((status, REFUSAL, HEADERS))
    assert await call == (code, "no start: 100 %")
    post = later(sleeping.http.get("/v2/models/huge"))
    await until_waiting(sleeping, 1)
    sleeping.echoes["hold"].waiting.pop(0).set_result((status, REFUSAL, HEADERS))
    answer = await post
    assert (answer.status_code, answer.content) == (status, REFUSAL)
    assert (answer.headers["retry-after"], answer.headers["content-type"]) == (
        "7",
        "application/json",
    )


async def test_a_deadline_holds_while_a_call_waits(sleeping: conftest.Mesh) -> None:
    code, _ = await sleeping.fault(HUGE, timeout_s=0.5)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await support.wait_until_async(lambda: sleeping.echoes["hold"].left == 1, what="the hold ends")


async def test_without_a_controller_requests_are_refused(sleeping: conftest.Mesh) -> None:
    nobody = model.Endpoint("n1", "127.0.0.1", 1, f"{sleeping.run_dir}/nobody.sock")
    held = replace(awake(sleeping), pools={"big": ()}, held={"big": 60.0}, controller=nobody)
    await sleeping.gateway.apply(held)
    code, details = await sleeping.fault(HUGE)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "has no worker" in details
    answer = await sleeping.http.post("/v2/models/huge/infer", content=b"{}")
    assert answer.status_code == 503
    assert "has no worker" in answer.json()["error"]
