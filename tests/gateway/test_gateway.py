"""A node's gateway as a whole: start, change, report, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from meshserve.core.values import reports, snapshots
from meshserve.gateway import gateway
from meshserve.gateway.envoy import envoy_process
from tests import support
from tests.gateway import conftest
from tests.gateway.conftest import first_field

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]


def files_below(path: Any) -> list[str]:
    return sorted(
        str(file.relative_to(path)) for file in Path(path).rglob("*") if not file.is_dir()
    )


@contextlib.contextmanager
def blocking_folder(path: Any) -> Iterator[None]:
    path.mkdir()
    yield
    path.rmdir()


def program(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def test_a_gateway_reports_its_state(run_dir: str) -> None:
    node = gateway.NodeGateway(run_dir, envoy_concurrency=2)
    assert node.report("n1") == reports.GatewayReport("n1", os.getpid(), 0, "stopped", "")
    listen = f"127.0.0.1:{support.free_port()}"
    await node.start(snapshots.GatewaySnapshot(listen, "n1", {}))
    report = node.report("n1")
    assert (report.state, report.listen, report.restarts) == ("ready", listen, 0)
    assert program(report.envoy_pid) == "envoy"
    assert await node.drain(5) is True
    assert node.report("n1").state == "draining"
    await node.stop()
    assert (node.report("n1").state, node.report("n1").envoy_pid) == ("stopped", 0)


async def test_a_stopped_gateway_leaves_nothing_but_its_log(run_dir: str) -> None:
    node = gateway.NodeGateway(run_dir)
    await node.start(
        snapshots.GatewaySnapshot(f"127.0.0.1:{support.free_port()}", "n1", {"default": ()})
    )
    assert "envoy-admin.sock" in files_below(run_dir)
    await node.stop()
    assert files_below(run_dir) == ["logs/envoy.log"]


async def test_a_taken_port_is_an_error_before_anything_starts(run_dir: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        node = gateway.NodeGateway(run_dir)
        with pytest.raises(OSError, match="can't listen on"):
            await node.start(
                snapshots.GatewaySnapshot(f"127.0.0.1:{taken.getsockname()[1]}", "n1", {})
            )
    assert files_below(run_dir) == []


async def test_a_gateway_starts_beside_the_sockets_of_a_killed_one(run_dir: str) -> None:
    listen = f"127.0.0.1:{support.free_port()}"
    for name in ("envoy-admin.sock", "node-grpc.sock", "node-http.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(f"{run_dir}/{name}")
    node = gateway.NodeGateway(run_dir)
    await node.start(snapshots.GatewaySnapshot(listen, "n1", {}))
    await node.stop()


async def test_a_stopped_gateway_applies_no_snapshot(run_dir: str) -> None:
    with pytest.raises(envoy_process.EnvoyFailed, match="not running"):
        await gateway.NodeGateway(run_dir).apply(snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {}))


async def test_after_a_snapshot_that_fails_the_next_is_applied(mesh: conftest.Mesh) -> None:
    with (
        blocking_folder(Path(f"{mesh.run_dir}/envoy/.eds-pool-new.json")),
        pytest.raises(OSError, match="Is a directory"),
    ):
        await mesh.gateway.apply(replace(mesh.snapshot, pools={"new": ()}, routes={}))
    await mesh.gateway.apply(replace(mesh.snapshot, routes={"iris": "big"}))
    assert (await mesh.call(first_field(b"iris")))["by"] == "big-0"


async def test_a_gateway_starts_again_after_a_stop_or_a_failed_start(run_dir: str) -> None:
    node = gateway.NodeGateway(run_dir)
    snap = snapshots.GatewaySnapshot(f"127.0.0.1:{support.free_port()}", "n1", {"default": ()})
    with pytest.raises(OSError, match=r"can't listen on 192\.0\.2\.1:80"):
        await node.start(replace(snap, listen="192.0.2.1:80"))
    for _ in range(2):
        await node.start(snap)
        await node.apply(replace(snap, routes={"iris": "default"}))
        await node.drain(5)
        await node.stop()
        assert files_below(run_dir) == ["logs/envoy.log"]


async def test_a_gateway_moves_to_another_port(mesh: conftest.Mesh) -> None:
    listen = f"127.0.0.1:{support.free_port()}"
    await mesh.gateway.apply(replace(mesh.snapshot, listen=listen))
    assert mesh.gateway.report("n1").listen == listen
    async with grpc.aio.insecure_channel(listen) as channel:
        assert await channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
            first_field(b"huge")
        )
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert b'"big-0"' in await call(
            first_field(b"huge") + b"\x12\x00" * 50, compression=grpc.Compression.Gzip
        )


async def test_a_running_gateway_changes_its_way_to_workers(run_dir: str, module_dir: str) -> None:
    async with conftest.running(run_dir, module_dir=module_dir, is_native=False) as mesh:
        for is_native in (False, True, False, True):
            await mesh.gateway.apply(replace(mesh.snapshot, is_native=is_native))
            assert mesh.gateway.report("n1").native == ("on" if is_native else "off")
            # New connections: those of before are told to leave, and may meet their end.
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(mesh.snapshot.listen, options) as channel:
                call = channel.unary_unary(conftest.INFER)
                asked = [call(first_field(b"%d" % number)) for number in range(50)]
                assert len(await asyncio.gather(*asked)) == 50
            async with httpx.AsyncClient() as http:
                answer = await http.get(f"http://{mesh.snapshot.listen}/v2/models/a")
                assert answer.status_code == 200


async def test_envoys_module_is_left_out_after_crashes(run_dir: str, module_dir: str) -> None:
    async with conftest.running(run_dir, module_dir=module_dir) as mesh:
        assert mesh.gateway.report("n1").native == "on"
        for count in range(1, gateway.CRASHES_MAX + 1):
            await support.wait_until_async(lambda: mesh.gateway.report("n1").envoy_pid)
            os.kill(mesh.gateway.report("n1").envoy_pid, signal.SIGSEGV)
            await support.wait_until_async(
                functools.partial(lambda n: mesh.gateway._envoy.crashes == n, count)
            )
        word = "off: Envoy crashed 3 times"
        await support.wait_until_async(lambda: mesh.gateway.report("n1").native == word)
        await mesh.gateway.apply(mesh.snapshot)
        assert "dynamic_modules" not in str(mesh.gateway._envoy._folder.files)
        assert (await mesh.call(first_field(b"huge")))["by"] == "big-0"


async def test_changes_may_come_all_at_once(mesh: conftest.Mesh) -> None:
    snaps = [replace(mesh.snapshot, routes={f"model-{number}": "big"}) for number in range(10)]
    await asyncio.gather(*(mesh.gateway.apply(snap) for snap in snaps))
    assert (await mesh.call(first_field(b"model-9")))["by"] == "big-0"
    assert (await mesh.call(first_field(b"huge")))["by"].startswith("default")


async def test_a_gateway_takes_over_the_envoy_that_a_killed_one_left(mesh: conftest.Mesh) -> None:
    pid = mesh.gateway.report("n1").envoy_pid
    successor = gateway.NodeGateway(mesh.run_dir)
    await successor.start(replace(mesh.snapshot, routes={"iris": "big"}))
    assert (await mesh.call(first_field(b"iris")))["by"] == "big-0"
    assert (await mesh.http.get("/healthz")).status_code == 200
    assert (successor.report("n1").envoy_pid, successor.report("n1").state) == (pid, "ready")
    await successor.stop()


async def test_no_gateway_takes_over_what_it_cannot_configure(mesh: conftest.Mesh) -> None:
    successor = gateway.NodeGateway(mesh.run_dir)
    with pytest.raises(envoy_process.EnvoyFailed, match="cannot bind"):
        await successor.start(replace(mesh.snapshot, listen="192.0.2.1:80"))
    assert successor.report("n1").state == "stopped"
    await successor.start(mesh.snapshot)
    assert (await mesh.http.get("/healthz")).status_code == 200
    await successor.stop()
