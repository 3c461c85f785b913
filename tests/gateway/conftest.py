"""A gateway with a real Envoy in front of echoing servers."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio

from meshserve.core.values import model, snapshots
from meshserve.gateway import gateway
from meshserve.gateway.envoy import envoy_process
from meshserve.gateway.native import native_module
from tests import support
from tests.gateway import echo, frame_server

SERVERS: Any = (frame_server, echo)
BY_EACH_WAY = pytest.mark.parametrize("mesh", ["http", "frames"], indirect=True)
INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass
class Mesh:
    """What a test talks to. `snapshot` is what the gateway was started with."""

    run_dir: str
    gateway: gateway.NodeGateway
    snapshot: snapshots.GatewaySnapshot
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    echoes: dict[str, Any] = field(default_factory=dict)

    async def call(
        self, body: bytes = b"", path: str = INFER, metadata: Any = (), timeout_s: float = 10.0
    ) -> Any:
        """The picture that the server saw of a unary gRPC call."""
        return json.loads(
            await self.channel.unary_unary(path)(body, metadata=metadata, timeout=timeout_s)
        )

    async def fault(self, *args: Any, **kwargs: Any) -> tuple[grpc.StatusCode, str]:
        """Code and message of a unary gRPC call that fails."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(*args, **kwargs)
        return caught.value.code(), caught.value.details()


def member(run_dir: str, worker_id: str, *, is_ready: bool = True) -> snapshots.RingMember:
    return snapshots.RingMember(
        worker_id, model.Endpoint("n1", "127.0.0.1", 1, f"{run_dir}/{worker_id}.sock"), is_ready
    )


def first_field(name: bytes, number: int = 1) -> bytes:
    """A protobuf message with one string in it."""
    size, length = len(name), b""
    while size > 127:
        length += bytes([size % 128 + 128])
        size //= 128
    return bytes([number * 8 + 2]) + length + bytes([size]) + name


def keeper_pid(run_dir: str) -> int:
    """Return the process of the keeper of Envoy in this folder, 0 if there is none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if b"envoy_keeper.main" in words and run_dir.encode() in words:
            return int(path.parent.name)
    return 0


@pytest.fixture
def run_dir() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="gw-", dir="/tmp")
    yield path
    shutil.rmtree(path)


@contextlib.asynccontextmanager
async def running(
    run_dir: str, secret: str = "", module_dir: str = "", **changes: Any
) -> AsyncIterator[Mesh]:
    """A gateway in front of echoing workers and an echoing controller.

    The workers are default-0 and default-1 of the pool default, and big-0 of the pool big, which
    has the model `huge`. With a `secret` they refuse whoever does not send it.
    With a `module_dir`, in which its module is built, Envoy sends frames to workers.
    """
    async with contextlib.AsyncExitStack() as stack:
        names = ("default-0", "default-1", "big-0", "controller")
        echoes = {
            name: await stack.enter_async_context(
                SERVERS[name == "controller"].serving(
                    echo.Echo(name), f"{run_dir}/{name}.sock", secret
                )
            )
            for name in names
        }
        snap = snapshots.GatewaySnapshot(
            listen=f"127.0.0.1:{support.free_port()}",
            node="n1",
            pools={
                "default": (member(run_dir, "default-0"), member(run_dir, "default-1")),
                "big": (member(run_dir, "big-0"),),
            },
            routes={"huge": "big"},
            is_native=bool(module_dir),
            controller=model.Endpoint("n1", "127.0.0.1", 1, f"{run_dir}/controller.sock"),
        )
        snap = replace(snap, **changes)
        door = gateway.NodeGateway(run_dir, secret=secret, module_dir=module_dir)
        await door.start(snap)
        stack.push_async_callback(door.stop)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://{snap.listen}", timeout=10)
        )
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(
                snap.listen, options=[("grpc.max_receive_message_length", -1)]
            )
        )
        yield Mesh(run_dir, door, snap, http, channel, echoes)


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(request: pytest.FixtureRequest, run_dir: str) -> AsyncIterator[Mesh]:
    """One of the test's own, to be changed and broken; `BY_EACH_WAY` runs a test by both ways."""
    async with running(run_dir, module_dir=_module_dir(request)) as started:
        yield started


def _module_dir(request: pytest.FixtureRequest) -> str:
    """Return where the module in C is if the fixture's parameter says that it is used."""
    is_native = getattr(request, "param", "http") == "frames"
    return str(request.getfixturevalue("module_dir")) if is_native else ""


@pytest.fixture(scope="session")
def module_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the built module in C."""
    folder = str(tmp_path_factory.mktemp("native"))
    built = native_module.find_or_build(folder, envoy_process.program())
    if built.reason == native_module.NO_COMPILER:
        pytest.skip(built.reason)
    assert built.reason == ""
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["http", "frames"])
async def shared_mesh(request: pytest.FixtureRequest) -> AsyncIterator[Mesh]:
    """One for all tests of a module that leave it as it is, by each of the ways to workers."""
    module_dir = _module_dir(request)
    path = tempfile.mkdtemp(prefix="gw-", dir="/tmp")
    async with running(path, module_dir=module_dir) as started:
        assert started.gateway.report("n1").native == ("on" if module_dir else "off")
        yield started
    shutil.rmtree(path)
