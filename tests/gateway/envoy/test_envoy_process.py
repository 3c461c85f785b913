"""Envoy as a process: start, change, restart, drain, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from meshserve import tasks
from meshserve.core.values import snapshots
from meshserve.gateway.envoy import envoy_config, envoy_process, gateway_paths
from tests import support
from tests.gateway import conftest
from tests.gateway.conftest import first_field, member

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

UNREACHABLE = "192.0.2.1:80"


def snap_for(run_dir: str, listen: str | None = None) -> snapshots.GatewaySnapshot:
    return snapshots.GatewaySnapshot(
        listen or f"127.0.0.1:{support.free_port()}",
        "n1",
        {"default": (member(run_dir, "default-0"),)},
    )


@pytest.fixture
def layout(run_dir: str) -> gateway_paths.GatewayPaths:
    paths = gateway_paths.GatewayPaths(run_dir)
    paths.make_folders()
    return paths


def is_alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def config_files(layout: gateway_paths.GatewayPaths) -> list[Path]:
    return list(Path(layout.config_dir).glob("*"))


async def status(mesh_or_listen: str, path: str = "/nothing") -> int:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"http://{mesh_or_listen}{path}")).status_code
    except httpx.TransportError:
        return 0


async def test_envoy_serves_when_start_returns_and_has_ended_when_stop_does(
    layout: gateway_paths.GatewayPaths,
) -> None:
    snap = snap_for(layout.run_dir)
    envoy = envoy_process.EnvoyProcess(layout, 1)
    await envoy.start(envoy_config.files(snap, layout.run_dir))
    pid = envoy.pid
    assert await status(snap.listen) == 404
    await envoy.stop()
    assert (envoy.pid, is_alive(pid), await status(snap.listen)) == (None, False, 0)
    assert config_files(layout) == []


async def test_a_refused_configuration_is_an_error_that_quotes_envoys_log(
    layout: gateway_paths.GatewayPaths,
) -> None:
    envoy = envoy_process.EnvoyProcess(layout, 1)
    with pytest.raises(envoy_process.EnvoyFailed, match=r"cannot bind '192\.0\.2\.1:80'"):
        await envoy.start(envoy_config.files(snap_for(layout.run_dir, UNREACHABLE), layout.run_dir))
    assert envoy.pid is None
    assert config_files(layout) == []


async def test_an_unreadable_configuration_is_an_error_too(
    layout: gateway_paths.GatewayPaths,
) -> None:
    files = {
        **envoy_config.files(snap_for(layout.run_dir), layout.run_dir),
        "bootstrap.json": '{"surprise": 1}',
    }
    with pytest.raises(envoy_process.EnvoyFailed, match="surprise"):
        await envoy_process.EnvoyProcess(layout, 1).start(files)


async def test_after_a_refused_change_the_configuration_of_before_is_in_force(
    mesh: conftest.Mesh,
) -> None:
    with pytest.raises(envoy_process.EnvoyFailed, match="cannot bind"):
        await mesh.gateway.apply(replace(mesh.snapshot, listen=UNREACHABLE, routes={"iris": "big"}))
    assert (await mesh.call(first_field(b"iris")))["by"].startswith("default")
    await mesh.gateway.apply(replace(mesh.snapshot, routes={"iris": "big"}))
    assert (await mesh.call(first_field(b"iris")))["by"] == "big-0"


async def test_a_killed_envoy_is_back_with_its_last_configuration(mesh: conftest.Mesh) -> None:
    await mesh.gateway.apply(replace(mesh.snapshot, routes={"iris": "big"}))
    first = mesh.gateway.report("n1").envoy_pid
    for restarts in (1, 2):
        os.kill(mesh.gateway.report("n1").envoy_pid, signal.SIGKILL)
        began_s = time.monotonic()
        # Another process's, which announces nothing.
        while await status(mesh.snapshot.listen, "/v2/models/iris") != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert time.monotonic() - began_s < 10
        assert mesh.gateway.report("n1").restarts == restarts
    assert (await mesh.http.get("/v2/models/iris")).json()["by"] == "big-0"
    assert not is_alive(first)


async def test_a_change_while_envoy_is_down_is_not_lost(mesh: conftest.Mesh) -> None:
    os.kill(mesh.gateway.report("n1").envoy_pid, signal.SIGKILL)
    await mesh.gateway.apply(replace(mesh.snapshot, routes={"iris": "big"}))
    assert (await mesh.http.get("/v2/models/iris")).json()["by"] == "big-0"


async def test_a_drain_waits_for_calls_under_way_and_takes_no_new_ones(mesh: conftest.Mesh) -> None:
    call = tasks.spawn(mesh.call(metadata=[("x-say", "slow")]), "call", is_awaited=True)
    await support.wait_until_async(
        lambda: any(server.seen for server in mesh.echoes.values()), what="the call arrives"
    )
    assert await mesh.gateway.drain(10) is True
    assert (await call)["by"].startswith("default")
    await support.wait_until_async(
        lambda: not is_listening(mesh.snapshot.listen), what="the port is closed"
    )


def is_listening(listen: str) -> bool:
    port = f"{int(listen.rpartition(':')[2]):04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port}") and line.split()[3] == "0A" for line in lines)


async def test_a_drain_ends_in_bounded_time(mesh: conftest.Mesh) -> None:
    call = tasks.spawn(mesh.call(metadata=[("x-say", "slow")]), "call", is_awaited=True)
    await support.wait_until_async(
        lambda: any(server.seen for server in mesh.echoes.values()), what="the call arrives"
    )
    assert await mesh.gateway.drain(0.1) is False
    await call


async def test_envoy_does_not_outlive_its_parent(run_dir: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from meshserve.core.values import snapshots\n"
        "from meshserve.gateway import gateway\n"
        "async def main():\n"
        "    node = gateway.NodeGateway(sys.argv[1])\n"
        "    await node.start(snapshots.GatewaySnapshot(sys.argv[2], 'n1', {}))\n"
        "    print(node.report('n1').envoy_pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = (
        sys.executable,
        "-c",
        program,
        run_dir,
        f"127.0.0.1:{support.free_port()}",
    )
    parent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    envoy_pid = int(await parent.stdout.readline())
    assert is_alive(envoy_pid)
    parent.kill()
    await parent.wait()
    await support.wait_until_async(lambda: not is_alive(envoy_pid), what="Envoy is gone")
    await support.wait_until_async(
        lambda: not conftest.keeper_pid(run_dir), 60, "the keeper is gone"
    )


async def test_a_second_gateway_may_not_share_the_port(mesh: conftest.Mesh, run_dir: str) -> None:
    other = gateway_paths.GatewayPaths(f"{run_dir}/other")
    other.make_folders()
    files = envoy_config.files(snap_for(other.run_dir, mesh.snapshot.listen), other.run_dir)
    with pytest.raises(envoy_process.EnvoyFailed, match="Address already in use"):
        await envoy_process.EnvoyProcess(other, 1).start(files)
    assert await status(mesh.snapshot.listen, "/healthz") == 200
