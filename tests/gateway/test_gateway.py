"""The whole door: it opens, it follows, it reports, it closes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from meshserve.core.values import snapshots
from meshserve.gateway import gateway
from meshserve.gateway.envoy import envoy_process
from tests import support
from tests.gateway.conftest import first_field

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]


def files_below(path):
    return sorted(
        str(file.relative_to(path)) for file in Path(path).rglob("*") if not file.is_dir()
    )


@contextlib.contextmanager
def in_the_way(path):
    path.mkdir()
    yield
    path.rmdir()


def program(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def test_it_reports_its_life(run_dir):
    door = gateway.NodeGateway(run_dir, envoy_concurrency=2)
    assert door.report() == {
        "pid": os.getpid(),
        "envoy_pid": None,
        "state": "stopped",
        "listen": "",
        "restarts": 0,
    }
    listen = f"127.0.0.1:{support.free_port()}"
    await door.start(snapshots.GatewaySnapshot(listen, "n1", {}))
    report = door.report()
    assert (report["state"], report["listen"], report["restarts"]) == ("ready", listen, 0)
    assert program(report["envoy_pid"]) == "envoy"
    assert await door.drain(5) is True
    assert door.report()["state"] == "draining"
    await door.stop()
    assert (door.report()["state"], door.report()["envoy_pid"]) == ("stopped", None)


async def test_it_leaves_nothing_but_its_log(run_dir):
    door = gateway.NodeGateway(run_dir)
    await door.start(
        snapshots.GatewaySnapshot(f"127.0.0.1:{support.free_port()}", "n1", {"default": ()})
    )
    assert "envoy-admin.sock" in files_below(run_dir)
    await door.stop()
    assert files_below(run_dir) == ["logs/envoy.log"]


async def test_a_taken_port_is_told_before_anything_starts(run_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        door = gateway.NodeGateway(run_dir)
        with pytest.raises(OSError, match="can't listen on"):
            await door.start(
                snapshots.GatewaySnapshot(f"127.0.0.1:{taken.getsockname()[1]}", "n1", {})
            )
    assert files_below(run_dir) == []


async def test_it_can_be_started_again_where_it_was_killed(run_dir):
    listen = f"127.0.0.1:{support.free_port()}"
    for name in ("envoy-admin.sock", "node-grpc.sock", "node-http.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(f"{run_dir}/{name}")
    door = gateway.NodeGateway(run_dir)
    await door.start(snapshots.GatewaySnapshot(listen, "n1", {}))
    await door.stop()


async def test_what_is_not_running_follows_nobody(run_dir):
    with pytest.raises(envoy_process.EnvoyFailed, match="not running"):
        await gateway.NodeGateway(run_dir).apply(snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {}))


async def test_whatever_goes_wrong_with_one_snapshot_the_next_is_followed(mesh):
    with (
        in_the_way(Path(f"{mesh.run_dir}/envoy/.eds-pool-new.json")),
        pytest.raises(OSError, match="Is a directory"),
    ):
        await mesh.gateway.apply(replace(mesh.snapshot, pools={"new": ()}, routes={}))
    await mesh.gateway.apply(replace(mesh.snapshot, routes={"iris": "big"}))
    assert (await mesh.call(first_field(b"iris")))["by"] == "big-0"


async def test_it_opens_again_after_it_was_closed_or_could_not_open(run_dir):
    door = gateway.NodeGateway(run_dir)
    snap = snapshots.GatewaySnapshot(f"127.0.0.1:{support.free_port()}", "n1", {"default": ()})
    with pytest.raises(OSError, match=r"can't listen on 192\.0\.2\.1:80"):
        await door.start(replace(snap, listen="192.0.2.1:80"))
    for _ in range(2):
        await door.start(snap)
        await door.apply(replace(snap, routes={"iris": "default"}))
        await door.drain(5)
        await door.stop()
        assert files_below(run_dir) == ["logs/envoy.log"]


async def test_it_moves_to_another_port(mesh):
    listen = f"127.0.0.1:{support.free_port()}"
    await mesh.gateway.apply(replace(mesh.snapshot, listen=listen))
    assert mesh.gateway.report()["listen"] == listen
    async with grpc.aio.insecure_channel(listen) as channel:
        assert await channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
            first_field(b"huge")
        )
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert b'"big-0"' in await call(
            first_field(b"huge") + b"\x12\x00" * 50, compression=grpc.Compression.Gzip
        )


async def test_changes_may_follow_each_other_at_once(mesh):
    snaps = [replace(mesh.snapshot, routes={f"model-{number}": "big"}) for number in range(10)]
    await asyncio.gather(*(mesh.gateway.apply(snap) for snap in snaps))
    assert (await mesh.call(first_field(b"model-9")))["by"] == "big-0"
    assert (await mesh.call(first_field(b"huge")))["by"].startswith("default")
