"""Versions that are written slowly, broken, mistyped or replaced, under 100 requests a second."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import httpx
import numpy as np
import pytest

from meshserve import tasks
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests import support
from tests.e2e import running
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(300)]

PER_S = 100
PIECES = 4
WRITE_S = 10.0
MIXED_S = 6.0
"""Longer than it takes to notice a change of a repository, and to load it."""


@dataclass
class Answers:
    """The factors by which the model multiplied, the last one, and the errors."""

    factors: set[float] = field(default_factory=set)
    last: float = 0.0
    answered: int = 0
    faults: list[str] = field(default_factory=list)

    async def ask(self, stub: rpc.GRPCInferenceServiceStub) -> None:
        try:
            answer = await stub.ModelInfer(traffic.request(1), timeout=30)
        except grpc.aio.AioRpcError as error:
            self.faults.append(f"{error.code().name}: {error.details()}")
            return
        values = np.frombuffer(answer.raw_output_contents[0], np.float32)
        self.last = float(values[0] / traffic.X.ravel()[0])
        self.factors.add(self.last)
        self.answered += 1


@contextlib.asynccontextmanager
async def asking(listen: str) -> AsyncIterator[Answers]:
    """Ask for `m1` without a version at a steady rate; all answers have come at the end."""
    answers, sent = Answers(), set()

    async def send(stub: rpc.GRPCInferenceServiceStub) -> None:
        began_s, count = time.monotonic(), 0
        while True:
            while count < (time.monotonic() - began_s) * PER_S:
                task = tasks.spawn(answers.ask(stub), "request")
                sent.add(task)
                task.add_done_callback(sent.discard)
                count += 1
            await asyncio.sleep(0.01)

    async with grpc.aio.insecure_channel(listen) as channel:
        sending = tasks.spawn(send(rpc.GRPCInferenceServiceStub(channel)), "requests")
        try:
            yield answers
        finally:
            sending.cancel()
            await asyncio.gather(*sent)


async def write_slowly(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = len(content) // PIECES + 1
    with path.open("wb", buffering=0) as stream:
        for start in range(0, len(content), size):
            stream.write(content[start : start + size])
            await asyncio.sleep(WRITE_S / PIECES)


def model_bytes(folder: Path, factor: int) -> bytes:
    return Path(traffic.write_model(folder / f"{factor}.onnx", factor)).read_bytes()


async def until(is_true: Callable[[], object], what: str) -> None:
    await support.wait_until_async(is_true, support.WAIT_S, what)


async def test_no_request_fails_while_a_repository_changes(tmp_path: Path) -> None:
    model = tmp_path / "repository" / "m1"
    traffic.write_model(model / "1" / "model.onnx", 1)
    document = {
        "pools": {"default": {"workers": 1, "memory": "1GiB"}},
        "repositories": [{"path": str(tmp_path / "repository")}],
    }
    with running.mesh(document) as mesh:
        await until(lambda: mesh.http.get("/v2/models/m1/ready").status_code == 200, "m1")
        async with asking(mesh.listen) as answers:
            await until(lambda: answers.last == 1.0, "the first version answers")
            await write_slowly(model / "2" / "model.onnx", model_bytes(tmp_path, 2))
            await until(lambda: answers.last == 2.0, "the second version answers")
            (model / "3").mkdir()
            (model / "3" / "model.onnx").write_bytes(b"junk")
            await asyncio.sleep(MIXED_S)
            broken = mesh.http.get("/v2/models/m1/versions/3/ready").status_code
            (model / "config.pbtxt").write_text("max_batch_size: {")
            await asyncio.sleep(MIXED_S)
            problems = mesh.status()["repositories"][0]["problems"]
            (model / "config.pbtxt").unlink()
            (model / "2" / "model.onnx").write_bytes(b"more junk")
            await asyncio.sleep(MIXED_S)
            await write_slowly(model / "2" / "model.onnx", model_bytes(tmp_path, 5))
            await until(lambda: answers.last == 5.0, "the replaced version answers")
    assert answers.faults == []
    assert answers.factors == {1.0, 2.0, 5.0}
    assert answers.answered > WRITE_S * PER_S
    assert broken != 200
    assert any("config.pbtxt" in line or "line 1" in line for line in problems)


async def test_no_request_fails_while_models_are_put(tmp_path: Path) -> None:
    first = traffic.write_model(tmp_path / "first.onnx", 1)
    junk, second = tmp_path / "junk.onnx", tmp_path / "second.onnx"
    junk.write_bytes(b"junk")
    traffic.write_model(second, 2)
    pools = {"default": {"workers": 1, "memory": "1GiB"}}
    with running.mesh({"pools": pools}) as mesh:

        async def put(uri: object, **fields: str) -> httpx.Response:
            body = {"uri": str(uri), **fields}
            return await asyncio.to_thread(mesh.http.put, "/mesh/v1/models/m1", json=body)

        (await put(first)).raise_for_status()
        async with asking(mesh.listen) as answers:
            await until(lambda: answers.last == 1.0, "the first model answers")
            (await put(junk)).raise_for_status()
            await asyncio.sleep(MIXED_S / 2)
            (await put(junk, version="2")).raise_for_status()
            await asyncio.sleep(MIXED_S / 2)
            assert answers.factors == {1.0}
            (await put(second, version="2")).raise_for_status()
            await until(lambda: answers.last == 2.0, "the second version answers")
            second.unlink()
            (await put(junk, version="2")).raise_for_status()
            await asyncio.sleep(MIXED_S / 2)
    assert answers.faults == []
    assert answers.factors == {1.0, 2.0}
