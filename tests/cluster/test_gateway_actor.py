"""The actor as a plain object in this process; test_ray_cluster.py has it in its own process."""

from __future__ import annotations

import os
from typing import Any

import pytest

from meshserve import errors
from meshserve.cluster import actor_process, gateway_actor
from meshserve.core.values import reports, snapshots
from meshserve.gateway.envoy import envoy_process

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("ray_session")]

SNAP = snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {})


class FakeGateway:
    """Records its calls; `apply` raises `failure` if one is set."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
        self.calls: list[tuple[str, snapshots.GatewaySnapshot]] = []
        self.failure: Exception | None = None

    async def start(self, snap: snapshots.GatewaySnapshot) -> None:
        self.calls.append(("start", snap))

    async def apply(self, snap: snapshots.GatewaySnapshot) -> None:
        self.calls.append(("apply", snap))
        if self.failure is not None:
            raise self.failure

    def report(self, node: str) -> reports.GatewayReport:
        return reports.GatewayReport(node, os.getpid(), 0, "ready", "here", 3)


@pytest.fixture
def gateway(run_dir: str) -> FakeGateway:
    return FakeGateway(run_dir)


@pytest.fixture
def actor(gateway: FakeGateway) -> gateway_actor.GatewayActor:
    make: Any = lambda _: gateway  # noqa: E731 - a fake in place of NodeGateway
    return gateway_actor.GatewayActor(make, gateway.run_dir, has_nodes=False)


async def test_a_running_gateway_is_configured_and_not_started_again(
    actor: gateway_actor.GatewayActor, gateway: FakeGateway
) -> None:
    first = await actor.start(SNAP)
    assert await actor.start(SNAP) == first
    assert [method for method, _ in gateway.calls] == ["start", "apply"]
    assert not isinstance(first, errors.MeshError)
    assert first.node == actor_process.node_id()


@pytest.mark.parametrize("failure", [envoy_process.EnvoyFailed("bad words"), OSError("bad words")])
async def test_a_failure_of_envoy_or_the_system_is_unavailable(
    actor: gateway_actor.GatewayActor, gateway: FakeGateway, failure: Exception
) -> None:
    gateway.failure = failure
    error = await actor.apply(SNAP)
    assert isinstance(error, errors.Unavailable)
    assert error.message == "the gateway: bad words"
