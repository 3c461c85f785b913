"""A worker behind two gateways, one by HTTP and one by frames: all that clients get is the same."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import struct
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from meshserve.core.values import model, snapshots
from meshserve.gateway import gateway
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.worker import worker
from tests import support
from tests.worker import helpers

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

BYTES_MAX = 12 << 20
OTHER_EACH_TIME = (b"date:", b"x-request-id:")
SLOW = """
    import time
    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]
        def predict(self, inputs):
            time.sleep(0.5)
            return {"y": inputs["x"]}
"""
GATED = """
    import os, time
    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("y", "FP32", [-1, 2])]
        def predict(self, inputs):
            while not os.path.exists("GATE"):
                time.sleep(0.01)
            return {"y": inputs["x"]}
"""
IDENTITY = """
    class Model:
        inputs = [("x", "FP32", [-1, -1])]
        outputs = [("x", "FP32", [-1, -1])]
        def predict(self, inputs):
            return inputs
"""
SEEN = """
    import numpy as np
    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("seen", "BYTES", [-1])]
        def predict(self, inputs, request):
            shown = sorted(f"{k}={v}" for k, v in request.headers.items() if k != "x-request-id")
            return {"seen": np.array(shown, object)}
"""


@dataclass
class Pair:
    """The worker, and the addresses of its gateways: by HTTP, by frames.

    The model `gated` answers once the file `gate` is there.
    """

    worker: worker.PoolWorker
    listens: tuple[str, str]
    channels: tuple[grpc.aio.Channel, grpc.aio.Channel]
    gate: Path

    async def calls(self, path: str, body: bytes, **how: Any) -> list[Any]:
        """Return what a client of each gateway gets: answer or error, and all metadata."""
        return [await outcome(channel, path, body, **how) for channel in self.channels]

    async def sends(self, request: bytes) -> list[bytes]:
        """Return the bytes that each gateway sends for those of one HTTP/1.1 request."""
        return [await raw(listen, request) for listen in self.listens]


async def outcome(channel: grpc.aio.Channel, path: str, body: bytes, **how: Any) -> Any:
    call = channel.unary_unary(path)(body, **how)
    try:
        answer: Any = await call
    except grpc.aio.AioRpcError as error:
        answer = (error.code(), error.details())
    both = [*(await call.initial_metadata() or ()), *(await call.trailing_metadata() or ())]
    return answer, sorted(
        (key, value) for key, value in both if key not in ("date", "x-request-id", "content-length")
    )


async def raw(listen: str, request: bytes) -> bytes:
    """Return one answer, its headers in the order of their names."""
    host, _, port = listen.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with contextlib.closing(writer):
        writer.write(request)
        async with asyncio.timeout(support.WAIT_S):
            status, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
            sizes = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
            size = 0 if request.startswith(b"HEAD") else sizes[0]
            body = await reader.readexactly(size)
    lines = sorted(line for line in lines if not line.startswith(OTHER_EACH_TIME))
    return b"\r\n".join((status, *lines, b"", body))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(module_dir: str) -> AsyncIterator[Pair]:
    folder = tempfile.mkdtemp(prefix="w-", dir="/tmp")
    storage = helpers.FakeStorage(Path(folder))
    running = worker.PoolWorker(model.ServerAddress("w-0", folder), helpers.settings(), storage)
    endpoint = await running.start()
    gate = Path(folder) / "gate"
    gate.touch()
    sources = {"doubled": helpers.DOUBLED, "slow": SLOW, "identity": IDENTITY, "seen": SEEN}
    sources["gated"] = GATED.replace("GATE", str(gate))
    specs = [helpers.spec(name, storage.put(name, text)) for name, text in sources.items()]
    helpers.apply(running, *helpers.declared(*specs))
    for spec in specs:
        await running.ensure_loaded(spec.id, 60)
    async with contextlib.AsyncExitStack() as stack:
        listens, channels = [], []
        for is_native in (False, True):
            run_dir = f"{folder}/{is_native}"
            snap = snapshots.GatewaySnapshot(
                listen=f"127.0.0.1:{support.free_port()}",
                node=endpoint.node,
                pools={"default": (snapshots.RingMember("w-0", endpoint, ready=True),)},
                request_bytes_max=BYTES_MAX,
                is_native=is_native,
            )
            door = gateway.NodeGateway(run_dir, module_dir=module_dir)
            await door.start(snap)
            stack.push_async_callback(door.stop)
            assert door.report("n").native == ("on" if is_native else "off")
            channel = grpc.aio.insecure_channel(
                snap.listen, options=[("grpc.max_receive_message_length", -1)]
            )
            listens.append(snap.listen)
            channels.append(await stack.enter_async_context(channel))
        yield Pair(running, (listens[0], listens[1]), (channels[0], channels[1]), gate)
    await running.stop()
    shutil.rmtree(folder)


def infer(name: str = "doubled", **fields: Any) -> bytes:
    return helpers.infer(name, **fields).SerializeToString()


def named(kind: Any, name: str, version: str = "") -> bytes:
    return bytes(kind(name=name, version=version).SerializeToString())


CALLS: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "a prediction": (paths.MODEL_INFER, infer(), {}),
    "with an id and a deadline": (paths.MODEL_INFER, infer(id="7"), {"timeout": 60}),
    "an unknown model": (paths.MODEL_INFER, infer("näme"), {}),
    "an unknown version": (paths.MODEL_INFER, infer(version="9"), {}),
    "no model": (paths.MODEL_INFER, infer(""), {}),
    "an empty message": (paths.MODEL_INFER, b"", {}),
    "no message of this kind": (paths.MODEL_INFER, b"\xff\xff\xff", {}),
    "a model that raises": (paths.MODEL_INFER, infer(rows=((-1.0, 2.0),)), {}),
    "a wrong shape": (paths.MODEL_INFER, infer(rows=((1.0, 2.0, 3.0),)), {}),
    "a model that waits": (paths.MODEL_INFER, infer("slow"), {}),
    "a model that sees headers": (paths.MODEL_INFER, infer("seen"), {"metadata": (("a", "b"),)}),
    "readiness": (paths.MODEL_READY, named(pb.ModelReadyRequest, "doubled"), {}),
    "readiness of none": (paths.MODEL_READY, named(pb.ModelReadyRequest, "x"), {}),
    "metadata": (paths.MODEL_METADATA, named(pb.ModelMetadataRequest, "doubled"), {}),
    "metadata of none": (paths.MODEL_METADATA, named(pb.ModelMetadataRequest, "x"), {}),
    "configuration": (paths.MODEL_CONFIG, named(pb.ModelConfigRequest, "doubled"), {}),
    "a name in the metadata": (
        paths.MODEL_INFER,
        infer("x"),
        {"metadata": (("mm-model-id", "doubled"),)},
    ),
    "an encoded name": (
        paths.MODEL_INFER,
        infer("x"),
        {"metadata": (("mm-vmodel-id-bin", b"doubled"), ("mm-model-id", "x"))},
    ),
    "a name that is not UTF-8": (
        paths.MODEL_INFER,
        infer(),
        {"metadata": (("mm-vmodel-id-bin", b"\xff\xfe"),)},
    ),
    "two names": (
        paths.MODEL_INFER,
        infer(),
        {"metadata": (("mm-model-id", "doubled"), ("mm-model-id", "x"))},
    ),
    "gzip": (paths.MODEL_INFER, infer(), {"compression": grpc.Compression.Gzip}),
    "10 MB": (paths.MODEL_INFER, infer("identity", rows=[[1.5] * 2_500_000]), {}),
    "above the limit": (paths.MODEL_INFER, infer("identity", rows=[[1.5] * 3_500_000]), {}),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_answered_alike(pair: Pair, name: str) -> None:
    path, body, how = CALLS[name]
    by_http, by_frames = await pair.calls(path, body, **how)
    if name == "a model that sees headers":
        # Their own ports and clocks.
        assert all(isinstance(answer, bytes) for answer, _ in (by_http, by_frames))
        by_http, by_frames = (_seen(answer) for answer, _ in (by_http, by_frames))
    assert by_frames == by_http


def _seen(answer: bytes) -> list[str]:
    content = pb.ModelInferResponse.FromString(answer).raw_output_contents[0]
    lines, at = [], 0
    while at < len(content):
        (size,) = struct.unpack_from("<I", content, at)
        lines.append(content[at + 4 : at + 4 + size].decode().partition("127.0.0.1:")[0])
        at += 4 + size
    return lines


async def test_a_deadline_ends_a_call_alike(pair: Pair) -> None:
    for seconds in (0.05, 0.2):
        codes = [code for (code, _), _ in await _slow_calls(pair, seconds)]
        assert codes == [(grpc.StatusCode.DEADLINE_EXCEEDED)] * 2


async def _slow_calls(pair: Pair, seconds: float) -> list[Any]:
    return await pair.calls(paths.MODEL_INFER, infer("slow"), timeout=seconds)


async def test_the_call_of_a_client_that_leaves_is_dropped(pair: Pair) -> None:
    load = pair.worker.app.load
    for channel in pair.channels:
        pair.gate.unlink()
        calls = [channel.unary_unary(paths.MODEL_INFER)(infer("gated")) for _ in range(3)]
        await support.wait_until_async(lambda: load.in_flight >= 3)
        for call in calls:
            call.cancel()
        # The gate is shut: none was answered.
        await support.wait_until_async(lambda: load.in_flight == 0)
        assert load.failures_by_kind["Abandoned"] >= 1
        pair.gate.touch()


async def test_a_worker_that_takes_nothing_refuses_alike(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthz = paths.HEALTHZ.encode()
    # Else Envoys notice at different times, and answer for themselves.
    monkeypatch.setitem(pair.worker.app._pages, healthz, lambda: (200, (), b"ok"))
    monkeypatch.setattr(pair.worker.app, "is_draining", True)
    calls = await pair.calls(paths.MODEL_INFER, infer())
    requests = await pair.sends(rest(b"POST", b"/v2/models/doubled/infer", b"{}"))
    assert calls[0][0] == calls[1][0]
    assert calls[0][0][0] is grpc.StatusCode.UNAVAILABLE
    assert requests[0] == requests[1]
    assert requests[0].startswith(b"HTTP/1.1 503")
    assert b"draining" in requests[0]


def rest(method: bytes, path: bytes, body: bytes = b"", *headers: bytes) -> bytes:
    length = (b"content-length: %d" % len(body),) if body else ()
    lines = (b"%b %b HTTP/1.1" % (method, path), b"host: m", b"x-y: z")
    return b"\r\n".join((*lines, *length, *headers, b"", body))


def call(*frames: bytes, headers: Sequence[bytes] = ()) -> bytes:
    kind = (b"content-type: application/grpc", b"te: trailers", *headers)
    return rest(b"POST", paths.MODEL_INFER.encode(), b"".join(frames), *kind)


def framed(message: bytes, flag: int = 0, length: int = -1) -> bytes:
    return struct.pack(">BI", flag, len(message) if length < 0 else length) + message


ROW = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
REQUESTS = {
    "no message": call(),
    "half a head": call(b"\0\0\0"),
    "a length that is too long": call(framed(infer(), length=9999)),
    "a length that is too short": call(framed(infer(), length=3)),
    "a huge length": call(framed(infer(), length=0xFFFFFFFF)),
    "two messages": call(framed(infer()), framed(infer())),
    "compressed in secret": call(framed(infer(), flag=1)),
    "an unknown compression": call(framed(infer(), flag=1), headers=[b"grpc-encoding: snappy"]),
    "a wrong deadline": call(framed(infer()), headers=[b"grpc-timeout: soon"]),
    "wrong base64": call(framed(infer()), headers=[b"mm-model-id-bin: %%%"]),
    "a path with a query": call(framed(infer())).replace(b"ModelInfer ", b"ModelInfer?a=b "),
    "an unknown method": call(framed(infer())).replace(b"ModelInfer ", b"ModelGuess "),
    "chunks": call(headers=[b"transfer-encoding: chunked"])
    + b"".join(b"1\r\n%c\r\n" % byte for byte in framed(infer()))
    + b"0\r\n\r\n",
    "chunks with a trailer": call(headers=[b"transfer-encoding: chunked"])
    + b"%x\r\n%b\r\n0\r\nmm-model-id: x\r\n\r\n" % (len(framed(infer())), framed(infer())),
    "REST": rest(b"POST", b"/v2/models/doubled/infer", ROW),
    "REST in V1": rest(b"POST", b"/v1/models/doubled:predict", b'{"instances":[[1,2]]}'),
    "REST, wrong": rest(b"POST", b"/v2/models/doubled/infer", b"{"),
    "REST, raising": rest(b"POST", b"/v2/models/doubled/infer", ROW.replace(b"[1,2]}", b"[-1,2]}")),
    "REST, unknown": rest(b"POST", b"/v2/models/x/infer", ROW),
    "REST, encoded": rest(b"POST", b"/v2/models/doubl%65d/infer?a=b", ROW),
    "REST, a list": rest(b"GET", b"/v2/models/doubled"),
    "REST, HEAD": rest(b"HEAD", b"/v2/models/doubled"),
    "REST, ready": rest(b"GET", b"/v2/models/doubled/ready"),
    "REST, gzip": rest(b"POST", b"/v2/models/doubled/infer", ROW, b"content-encoding: gzip"),
    "REST, empty": rest(b"POST", b"/v2/models/doubled/infer"),
    "REST, OPTIONS": rest(b"OPTIONS", b"/v2/models/doubled/infer"),
    "REST, large": rest(
        b"POST",
        b"/v2/models/identity/infer",
        b'{"inputs":[{"name":"x","shape":[1,100000],"datatype":"FP32","data":[%b1]}]}'
        % (b"1," * 99_999),
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_bytes_are_answered_alike(pair: Pair, name: str) -> None:
    by_http, by_frames = await pair.sends(REQUESTS[name])
    assert by_frames == by_http


async def test_random_changes_of_a_call_are_answered_alike(pair: Pair) -> None:
    dice = random.Random(3)
    whole = framed(infer(id="an id", parameters={}))
    for _ in range(300):
        frame = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            frame[dice.randrange(len(frame))] = dice.randrange(256)
        if dice.random() < 0.2:
            del frame[dice.randrange(len(frame)) :]
        if dice.random() < 0.8:
            frame[:5] = struct.pack(">BI", 0, max(0, len(frame) - 5))
        by_http, by_frames = await pair.sends(call(bytes(frame)))
        assert by_frames == by_http, bytes(frame).hex()
