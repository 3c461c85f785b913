"""Both servers of the sidecar together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import envoy_admin, gateway_paths
from meshserve.gateway.sidecar import sidecar
from tests.gateway.conftest import member

CHECK = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


@pytest.fixture
def layout(run_dir: str) -> gateway_paths.GatewayPaths:
    paths = gateway_paths.GatewayPaths(run_dir)
    paths.make_folders()
    return paths


async def health(layout: gateway_paths.GatewayPaths) -> bytes:
    async with grpc.aio.insecure_channel(f"unix:{layout.grpc_socket}") as channel:
        return bytes(await channel.unary_unary(CHECK)(b"", timeout=5))


@pytest.mark.edge
@pytest.mark.asyncio(loop_scope="module")
async def test_the_sidecar_follows_the_snapshot_and_drains(
    layout: gateway_paths.GatewayPaths,
) -> None:
    envoy = envoy_admin.EnvoyAdmin(layout.admin_socket)
    beside = sidecar.Sidecar(layout, envoy)
    assert (beside.is_ready(), beside.request_bytes_max(), await beside.metrics()) == (False, 0, "")
    snap = snapshots.GatewaySnapshot(
        "127.0.0.1:1", "n1", {"default": (member(layout.run_dir, "default-0"),)}
    )
    await beside.start(snap)
    assert (beside.is_ready(), await health(layout)) == (True, SERVING)
    await beside.follow(replace(snap, pools={}))
    assert (beside.is_ready(), await health(layout)) == (False, NOT_SERVING)
    await beside.follow(replace(snap, request_bytes_max=5))
    assert (beside.is_ready(), await health(layout), beside.request_bytes_max()) == (
        True,
        SERVING,
        5,
    )
    await beside.drain()
    assert (beside.is_ready(), await health(layout)) == (False, NOT_SERVING)
    await beside.stop()
    await beside.stop()
    await envoy.close()
    with pytest.raises(grpc.aio.AioRpcError):
        await health(layout)


def test_a_mesh_is_ready_with_one_ready_worker_in_any_pool() -> None:
    def can_answer(**pools: Any) -> bool:
        return sidecar.can_answer(snapshots.GatewaySnapshot("127.0.0.1:1", "n1", pools))

    assert not can_answer()
    assert not can_answer(default=(), big=(member("/run", "big-0", is_ready=False),))
    assert can_answer(
        default=(), big=(member("/run", "big-0", is_ready=False), member("/run", "big-1"))
    )


def test_a_mesh_without_workers_is_ready_with_an_llm() -> None:
    def can_answer(*members: Any, wanted: int = 0) -> bool:
        llms = (snapshots.LlmRoute("tiny", ("tiny",), is_held=True),)
        pools = {"default": members}
        return sidecar.can_answer(
            snapshots.GatewaySnapshot("127.0.0.1:1", "n1", pools, llms=llms, workers_wanted=wanted)
        )

    assert can_answer()
    assert not can_answer(wanted=2)
    assert can_answer(member("/run", "default-0"), wanted=2)
    assert not can_answer(member("/run", "default-0", is_ready=False))
