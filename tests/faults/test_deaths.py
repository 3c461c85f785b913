"""A worker, the controller or Envoy is killed under 500 requests a second."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import support
from tests.e2e import running
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(240)]

MODELS = 40
PER_S = 500
SERVING_AGAIN_S = 2.0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    with traffic.serving(tmp_path_factory.mktemp("models"), MODELS) as started:
        yield started


async def killed_under_traffic(mesh: running.Mesh, pid: int) -> tuple[traffic.Traffic, float]:
    """Kill the process amid the traffic; return the traffic, and the time of the kill."""
    async with traffic.flowing(mesh.listen, traffic.zipf(MODELS), PER_S) as flow:
        await asyncio.sleep(2)
        os.kill(pid, signal.SIGKILL)
        killed_s = time.monotonic()
        await asyncio.sleep(6)
    assert flow.answered > PER_S
    return flow, killed_s


def is_ready_again(
    mesh: running.Mesh, what: Callable[[dict[str, Any]], int], old_pid: int
) -> Callable[[], bool]:
    return lambda: mesh.status()["state"] == "ready" and what(mesh.status()) not in (old_pid, 0)


def worker_pid(status: dict[str, Any]) -> int:
    return int(status["pools"][0]["workers"][0]["pid"])


async def test_no_request_fails_when_a_worker_is_killed(mesh: running.Mesh) -> None:
    pid = worker_pid(mesh.status())
    flow, _ = await killed_under_traffic(mesh, pid)
    assert flow.faults == []
    support.wait_until(is_ready_again(mesh, worker_pid, pid), 60, "the worker is back")


async def test_no_request_fails_and_no_registration_is_lost_when_the_controller_is_killed(
    mesh: running.Mesh, tmp_path: Path
) -> None:
    model = traffic.write_model(tmp_path / "late.onnx", 7)
    mesh.http.put("/mesh/v1/models/late", json={"uri": str(model)}).raise_for_status()
    before = mesh.status()
    flow, _ = await killed_under_traffic(mesh, before["controller"]["pid"])
    assert flow.faults == []
    support.wait_until(
        lambda: mesh.http.get("/mesh/v1/models/late").status_code == 200,
        60,
        "the controller is back",
    )
    support.wait_until(
        is_ready_again(
            mesh, lambda status: status["controller"]["pid"], before["controller"]["pid"]
        ),
        60,
        "all is ready",
    )
    after = mesh.status()
    assert after["controller"]["restarts"] == before["controller"]["restarts"] + 1
    assert worker_pid(after) == worker_pid(before)
    assert mesh.http.get("/v2/models/late/ready").status_code == 200


async def test_envoy_serves_again_within_two_seconds(mesh: running.Mesh) -> None:
    pid = mesh.status()["gateways"][0]["envoy_pid"]
    flow, killed_s = await killed_under_traffic(mesh, pid)
    late = [
        (sent_s - killed_s, fault)
        for sent_s, fault in flow.faults
        if sent_s > killed_s + SERVING_AGAIN_S
    ]
    assert late == []
    assert mesh.status()["gateways"][0]["restarts"] == 1
