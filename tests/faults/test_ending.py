"""Ctrl-C and SIGTERM under traffic: what was accepted is answered, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from meshserve import tasks
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests import support
from tests.e2e import running
from tests.faults import connections, traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(240)]

SLOW = """
import time

class Model:
    inputs = [("x", "FP32", [-1, 8])]
    outputs = [("y", "FP32", [-1, 8])]

    def predict(self, inputs):
        time.sleep(0.5)
        return {"y": inputs["x"] * 0}
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """For temporary files of the mesh: a Unix socket's path has no room for pytest's."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
async def test_everything_accepted_is_answered_and_nothing_is_left(
    signal_: signal.Signals, tmp_path: Path, short_folder: Path
) -> None:
    slow = tmp_path / "m0"
    slow.mkdir()
    (slow / "model.py").write_text(SLOW)
    document = {
        "pools": {"default": {"workers": 2, "memory": "1GiB"}},
        "models": [{"name": "m0", "uri": str(slow), "runtime": "python", "trust": True}],
    }
    with running.mesh(document, TMPDIR=str(short_folder)) as mesh:
        flow = traffic.Traffic()
        async with grpc.aio.insecure_channel(mesh.listen) as channel:
            stub = rpc.GRPCInferenceServiceStub(channel)
            await flow.ask(stub, 0)
            asked = [tasks.spawn(flow.ask(stub, 0), "ask", is_awaited=True) for _ in range(8)]
            await asyncio.sleep(0.2)
            mesh.process.send_signal(signal_)
            await asyncio.gather(*asked)
        code = await asyncio.to_thread(running.end, mesh, signal_)
        assert (flow.faults, flow.answered) == ([], 9)
        assert code == 0
        assert mesh.living() == set()
        assert not (mesh.home / "mesh.json").exists()
        assert list(short_folder.iterdir()) == []  # noqa: ASYNC240 - the loop has no other work
        host, _, port = mesh.listen.partition(":")
        with socket.socket() as again:
            again.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # connections that were closed may linger
            again.bind((host, int(port)))
            again.listen()


async def test_a_detached_mesh_is_found_and_ended(tmp_path: Path) -> None:
    document = {
        "pools": {"default": {"workers": 1, "memory": "1GiB"}},
        "models": traffic.models(tmp_path, 1),
    }
    with running.mesh(document, is_detached=True) as mesh:
        assert mesh.process.wait(60) == 0
        assert mesh.status()["state"] == "ready"
        assert mesh.cli("down").returncode == 0
        assert mesh.living() == set()
        again = mesh.cli("down")
        assert (again.returncode, again.stdout) == (3, "no mesh is running\n")


def test_killing_the_process_that_holds_the_mesh_leaves_nothing(
    tmp_path: Path, short_folder: Path
) -> None:
    document = {
        "pools": {"default": {"workers": 1, "memory": "1GiB"}},
        "models": traffic.models(tmp_path, 1),
    }
    with running.mesh(document, TMPDIR=str(short_folder)) as mesh:
        os.kill(mesh.process.pid, signal.SIGKILL)
        mesh.process.wait()
        # Ray's agents try for a minute to tell the GCS, which is gone too, of the raylet's end.
        support.wait_until(lambda: not mesh.living(), 120, "Ray, its agents and all of ours ended")
        support.wait_until(lambda: not list(short_folder.iterdir()), 60, "no file is left")


def gcs(mesh: running.Mesh) -> int:
    (pid,) = [
        pid
        for pid in mesh.living()
        if b"/gcs_server\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


async def test_a_mesh_whose_gcs_is_killed_starts_again(tmp_path: Path, short_folder: Path) -> None:
    document = {
        "pools": {"default": {"workers": 1, "memory": "1GiB"}},
        "models": traffic.models(tmp_path, 2),
    }
    with running.mesh(document, TMPDIR=str(short_folder)) as mesh:
        before = mesh.pids()
        os.kill(gcs(mesh), signal.SIGKILL)
        killed_s = time.monotonic()
        await asyncio.to_thread(support.wait_until, lambda: is_another(mesh, before), 90)
        print(f"the mesh is back after {time.monotonic() - killed_s:.1f} s")  # noqa: T201 - for the table of docs/reliability.md
        seen = connections.Connections()
        await seen.ask(mesh.listen, 1)
        assert seen.outcomes == {"answered": 1}
        assert mesh.process.poll() is None
        support.wait_until(lambda: not before & mesh.living(), 60, "the lost one has ended")
        assert "it is started again" in mesh.log()
        assert (mesh.cli("down").returncode, mesh.process.wait(60)) == (0, 0)
        support.wait_until(lambda: not mesh.living(), 60, "all has ended")
        assert list(short_folder.iterdir()) == []  # noqa: ASYNC240 - the loop has no other work


def is_another(mesh: running.Mesh, before: set[int]) -> bool:
    """Return whether a mesh without any of these processes is ready."""
    try:
        return mesh.status()["state"] == "ready" and not before & mesh.pids()
    except httpx.HTTPError:
        return False
