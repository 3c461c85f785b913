"""Envoy, its keeper or the gateway's actor is killed under 100 new connections a second."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests import support
from tests.e2e import running
from tests.faults import connections, traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(240)]

MODELS = 10
PER_S = 100
# What Envoy had taken and not answered when it was killed: nothing can save these.
IN_FLIGHT_MAX = 16


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    with traffic.serving(tmp_path_factory.mktemp("models"), MODELS) as started:
        yield started


def gateway(mesh: running.Mesh) -> dict[str, Any]:
    (only,) = mesh.status()["gateways"]
    return dict(only)


async def killed_under_connections(mesh: running.Mesh, pid: int) -> connections.Connections:
    async with connections.flowing(mesh.listen, MODELS, PER_S) as seen:
        await asyncio.sleep(2)
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(4)
    print(dict(seen.outcomes), f"slowest {seen.slowest_s:.2f} s")  # noqa: T201 - for the table of docs/reliability.md
    return seen


async def test_no_connection_is_refused_when_envoy_is_killed(mesh: running.Mesh) -> None:
    before = gateway(mesh)
    seen = await killed_under_connections(mesh, before["envoy_pid"])
    answered = seen.outcomes.pop("answered")
    assert answered > PER_S
    assert set(seen.outcomes) <= {"reset", "closed"}
    assert seen.outcomes.total() <= IN_FLIGHT_MAX
    after = gateway(mesh)
    assert after["envoy_pid"] != before["envoy_pid"]
    assert after["restarts"] == before["restarts"] + 1


async def test_no_request_fails_when_the_gateways_actor_is_killed(mesh: running.Mesh) -> None:
    before = gateway(mesh)
    seen = await killed_under_connections(mesh, before["pid"])
    assert set(seen.outcomes) == {"answered"}
    support.wait_until(
        lambda: gateway(mesh)["state"] == "ready" and gateway(mesh)["pid"] != before["pid"],
        60,
        "the gateway is back",
    )
    assert gateway(mesh)["envoy_pid"] == before["envoy_pid"]
    assert mesh.http.get("/readyz").status_code == 200
