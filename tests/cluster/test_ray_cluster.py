from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from meshserve import errors, tasks
from meshserve.cluster import named_actors, ray_cluster
from meshserve.core.values import snapshots
from tests import support
from tests.contracts import cluster as contract

pytestmark = [pytest.mark.edge, pytest.mark.slow]


class TestRayCluster(contract.ClusterContract):
    """Real workers and a real gateway, in real processes."""


class RefusingWorker:
    """A worker that can't be started."""

    def __init__(self, failure: Any) -> None:
        self._failure = failure

    def note_crashes(self) -> None:
        """Journal nothing."""

    async def start(self) -> None:
        raise self._failure


def is_alive(pid: Any) -> Any:
    return Path(f"/proc/{pid}").exists()


async def wait_until_ended(*pids: Any) -> None:
    await support.wait_until_async(
        lambda: not any(map(is_alive, pids)), contract.WAIT_S, f"{pids} have ended"
    )


def sockets_in(folder: Path) -> Any:
    return [path for path in Path(folder).rglob("*") if path.is_socket()]


def snap_for(stage: Any, node: Any) -> Any:
    return snapshots.GatewaySnapshot(stage.listen, node, {"default": ()})


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (
            errors.MissingExtra("no torch here: ü", retry_after_s=2.5),
            errors.MissingExtra,
            "^no torch here: ü$",
        ),
        (
            OSError("no port is free"),
            errors.Unavailable,
            "^worker:default-0: OSError: no port is free$",
        ),
        (
            TimeoutError("too slow"),
            errors.Unavailable,
            "^worker:default-0: TimeoutError: too slow$",
        ),
    ],
)
async def test_errors_of_a_worker_arrive_with_class_and_message(
    cluster: Any, makers: Any, settings: Any, failure: Any, kind: Any, message: str
) -> None:
    refusing = ray_cluster.RayCluster(
        dataclasses.replace(makers, worker=lambda *_: RefusingWorker(failure))
    )
    with pytest.raises(kind, match=message) as caught:
        await refusing.start_worker(contract.WORKER, settings)
    assert type(caught.value) is kind
    assert caught.value.retry_after_s == getattr(failure, "retry_after_s", None)
    started = await cluster.start_worker(contract.WORKER, settings)
    assert is_alive(started.pid)


async def test_a_gateway_that_cannot_be_built_has_a_reason(stage: Any, makers: Any) -> None:
    def build(_run_dir: Any) -> None:
        raise OSError("no Envoy here")

    ((node, *_),) = await stage.cluster.nodes()
    refusing = ray_cluster.RayCluster(dataclasses.replace(makers, gateway=build))
    with pytest.raises(errors.Unavailable, match="is gone: OSError: no Envoy here"):
        await refusing.start_gateway(node, snap_for(stage, node))
    assert (await stage.cluster.start_gateway(node, snap_for(stage, node))).state == "ready"


async def test_a_killed_worker_is_lost_at_once_and_can_be_replaced(stage: Any) -> None:
    first = await stage.start_with(stage.good)
    lost = tasks.spawn(
        stage.cluster.wait_until_lost(contract.WORKER), "wait until lost", is_awaited=True
    )
    os.kill(first.pid, signal.SIGKILL)
    async with asyncio.timeout(named_actors.CALL_S):
        assert await lost
    with pytest.raises(errors.Unavailable):
        await stage.cluster.report(contract.WORKER, 0)
    second = await stage.start_with(stage.good)
    assert second.pid != first.pid
    await stage.cluster.ensure_loaded(contract.WORKER, stage.good.id, contract.WAIT_S)


async def test_a_restarted_controller_finds_running_workers_and_gateways(
    stage: Any, makers: Any
) -> None:
    started = await stage.start_with()
    ((node, *_),) = await stage.cluster.nodes()
    gateway = await stage.cluster.start_gateway(node, snap_for(stage, node))
    restarted = ray_cluster.RayCluster(makers)
    (living,) = await restarted.living_workers()
    assert (living.pid, living.endpoint, living.is_ready) == (started.pid, started.endpoint, True)
    same_gateway = await restarted.start_gateway(node, snap_for(stage, node))
    assert (same_gateway.pid, same_gateway.envoy_pid) == (gateway.pid, gateway.envoy_pid)


async def test_stopping_leaves_no_process_and_no_socket(stage: Any, makers: Any) -> None:
    worker = await stage.start_with()
    ((node, *_),) = await stage.cluster.nodes()
    gateway = await stage.cluster.start_gateway(node, snap_for(stage, node))
    await stage.cluster.stop_worker(contract.WORKER)
    await stage.cluster.stop_gateway(node)
    await wait_until_ended(worker.pid, gateway.pid, gateway.envoy_pid)
    assert sockets_in(makers.run_dir) == []


async def test_a_gateway_with_a_taken_port_fails_and_can_be_started_later(stage: Any) -> None:
    ((node, *_),) = await stage.cluster.nodes()
    host, _, port = stage.listen.partition(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(errors.Unavailable, match=f"{port}|in use"),
    ):
        await stage.cluster.start_gateway(node, snap_for(stage, node))
    assert (await stage.cluster.start_gateway(node, snap_for(stage, node))).state == "ready"
