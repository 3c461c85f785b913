"""The keeper as a process of its own, with a real Envoy."""

from __future__ import annotations

import asyncio
import functools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from meshserve.gateway.envoy import (
    envoy_config,
    envoy_keeper,
    envoy_process,
    gateway_paths,
)
from tests import support
from tests.gateway import conftest
from tests.gateway.envoy import test_envoy_process as processes

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]


OWN = "import socket, sys; s = socket.socket(1); s.connect(sys.argv[1]); s.recv(9); input()"


def sleeping() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


async def start_envoy(run_dir: str, *guardian: int) -> tuple[envoy_process.EnvoyProcess, str]:
    """Start an Envoy that ends with the process of this id, if any; return it and its address."""
    layout = gateway_paths.GatewayPaths(run_dir)
    layout.make_folders()
    snap = processes.snap_for(run_dir)
    envoy = envoy_process.EnvoyProcess(layout, 1, *guardian)
    await envoy.start(envoy_config.files(snap, run_dir))
    return envoy, snap.listen


@pytest_asyncio.fixture(loop_scope="module")
async def running(run_dir: str) -> AsyncIterator[tuple[envoy_process.EnvoyProcess, str]]:
    """An Envoy that holds its port, and the address."""
    envoy, listen = await start_envoy(run_dir)
    envoy.hold(listen)
    yield envoy, listen
    await envoy.stop()


async def test_clients_wait_while_envoy_is_replaced(
    running: tuple[envoy_process.EnvoyProcess, str],
) -> None:
    envoy, listen = running
    for _ in range(3):
        pid = envoy.pid or 0
        os.kill(pid, signal.SIGKILL)
        answers = await asyncio.gather(*(processes.status(listen) for _ in range(4)))
        assert answers == [404] * 4
        await support.wait_until_async(functools.partial(is_another, envoy, pid), 60, "it is told")
    assert envoy.restarts == 3


def is_another(envoy: envoy_process.EnvoyProcess, pid: int) -> bool:
    return envoy.pid not in (None, pid)


async def test_a_killed_keeper_takes_envoy_along_and_both_come_back(
    running: tuple[envoy_process.EnvoyProcess, str], run_dir: str
) -> None:
    envoy, listen = running
    envoy_pid, first = envoy.pid, conftest.keeper_pid(run_dir)
    os.kill(first, signal.SIGKILL)
    await support.wait_until_async(lambda: not processes.is_alive(envoy_pid), 60, "Envoy ends")
    await support.wait_until_async(lambda: conftest.keeper_pid(run_dir), 60, "another keeper")
    await until_serving(listen)
    assert envoy.pid not in (None, envoy_pid)


async def until_serving(listen: str) -> None:
    async with asyncio.timeout(60):
        # Another process's, which announces nothing.
        while await processes.status(listen) != 404:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_stopped_envoy_is_replaced(
    running: tuple[envoy_process.EnvoyProcess, str],
) -> None:
    envoy, listen = running
    pid = envoy.pid or 0
    os.kill(pid, signal.SIGSTOP)
    await until_serving(listen)
    await support.wait_until_async(functools.partial(is_another, envoy, pid), 60, "it is told")


async def test_a_stopped_owner_is_killed(run_dir: str) -> None:
    with sleeping() as guardian:
        envoy, listen = await start_envoy(run_dir, guardian.pid)
        socket = gateway_paths.GatewayPaths(run_dir).keeper_socket
        owner = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OWN, socket, stdin=asyncio.subprocess.PIPE
        )
        await support.wait_until_async(lambda: envoy.pid is None, 60, "the owner has changed")
        owner.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(60):
            assert await owner.wait() == -signal.SIGKILL
        assert await processes.status(listen) == 404
        guardian.kill()
    await support.wait_until_async(lambda: not conftest.keeper_pid(run_dir), 60, "it has ended")
    await envoy.stop()


async def test_envoy_may_open_as_many_files_as_the_system_allows(
    running: tuple[envoy_process.EnvoyProcess, str],
) -> None:
    envoy, _ = running
    assert envoy.pid is not None
    soft, hard = resource.prlimit(envoy.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


async def test_nothing_is_left_in_shared_memory(
    running: tuple[envoy_process.EnvoyProcess, str],
) -> None:
    envoy, _ = running
    maps = await asyncio.to_thread(Path(f"/proc/{envoy.pid}/maps").read_text)
    mapped = [line.split()[-1] for line in maps.splitlines() if "envoy_shared_memory" in line]
    assert mapped == ["(deleted)"]


async def test_the_next_gateway_takes_envoy_over(
    running: tuple[envoy_process.EnvoyProcess, str], run_dir: str
) -> None:
    (first, listen), pid = running, running[0].pid
    layout = gateway_paths.GatewayPaths(run_dir)
    second = envoy_process.EnvoyProcess(layout, 1)
    assert await second.find()
    assert (second.pid, second.restarts) == (pid, 0)
    await support.wait_until_async(lambda: first.pid is None, 60, "the first one is told")
    assert processes.is_alive(pid)
    snap = processes.snap_for(run_dir, f"127.0.0.1:{support.free_port()}")
    await second.apply(envoy_config.files(snap, run_dir))
    second.hold(snap.listen)
    assert await processes.status(snap.listen) == 404
    os.kill(second.pid or 0, signal.SIGKILL)
    assert await processes.status(snap.listen) == 404
    assert await processes.status(listen) == 0
    await second.stop()
    await support.wait_until_async(
        lambda: not conftest.keeper_pid(run_dir), 60, "the keeper has ended"
    )


async def test_there_is_no_envoy_to_take_over_where_none_was(run_dir: str) -> None:
    assert not await envoy_process.EnvoyProcess(gateway_paths.GatewayPaths(run_dir), 1).find()


async def test_a_keeper_without_an_owner_ends(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envoy_keeper, "ORPHAN_S", 0.0)
    with sleeping() as guardian:
        plan = envoy_keeper.KeeperPlan(
            run_dir, f"{run_dir}/log", guardian.pid, ["/bin/sleep", "60"]
        )
        await asyncio.to_thread(envoy_keeper.EnvoyKeeper(plan).run)
        guardian.kill()
    assert [path.name for path in Path(run_dir).iterdir()] == ["log"]  # noqa: ASYNC240 - the loop has no other work


async def test_a_keeper_without_a_guardian_does_not_begin(run_dir: str) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    plan = envoy_keeper.KeeperPlan(run_dir, f"{run_dir}/log", ended.pid, ["/bin/true"])
    with pytest.raises(ProcessLookupError):
        envoy_keeper.EnvoyKeeper(plan)


async def test_envoy_ends_with_the_guardian(run_dir: str) -> None:
    with sleeping() as guardian:
        envoy, _ = await start_envoy(run_dir, guardian.pid)
        pid = envoy.pid
        guardian.kill()
    await support.wait_until_async(lambda: not processes.is_alive(pid), 60, "Envoy has ended")
    await support.wait_until_async(
        lambda: not conftest.keeper_pid(run_dir), 60, "the keeper has ended"
    )
    await envoy.stop()


async def test_the_port_is_closed_to_new_clients_at_a_drain(
    running: tuple[envoy_process.EnvoyProcess, str],
) -> None:
    envoy, listen = running
    assert await envoy.drain(10)
    await support.wait_until_async(lambda: not processes.is_listening(listen), 60, "it is closed")
