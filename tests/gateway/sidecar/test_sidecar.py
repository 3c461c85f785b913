"""The node's two servers together."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import envoy_admin, gateway_paths
from meshserve.gateway.sidecar import sidecar
from tests.gateway.conftest import member

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

CHECK = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


@pytest.fixture
def at(run_dir):
    made = gateway_paths.GatewayPaths(run_dir)
    made.make_folders()
    return made


async def health(at):
    async with grpc.aio.insecure_channel(f"unix:{at.grpc_socket}") as channel:
        return await channel.unary_unary(CHECK)(b"", timeout=5)


async def test_it_follows_the_snapshot_and_drains(at):
    envoy = envoy_admin.Admin(at.admin_socket)
    small = sidecar.Sidecar(at, envoy)
    assert (small.is_ready(), small.request_bytes_max(), await small.metrics()) == (False, 0, "")
    snap = snapshots.GatewaySnapshot(
        "127.0.0.1:1", "n1", {"default": (member(at.run_dir, "default-0"),)}
    )
    await small.start(snap)
    assert (small.is_ready(), await health(at)) == (True, SERVING)
    await small.follow(replace(snap, pools={}))
    assert (small.is_ready(), await health(at)) == (False, NOT_SERVING)
    await small.follow(replace(snap, request_bytes_max=5))
    assert (small.is_ready(), await health(at), small.request_bytes_max()) == (True, SERVING, 5)
    await small.drain()
    assert (small.is_ready(), await health(at)) == (False, NOT_SERVING)
    await small.stop()
    await small.stop()
    await envoy.close()
    with pytest.raises(grpc.aio.AioRpcError):
        await health(at)
