"""Open-loop traffic from real gRPC clients, which check every answer, and its tiny models."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from meshserve import tasks
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests.e2e import running

X = np.linspace(-1, 1, 8, dtype=np.float32)[None]
STEP_S = 0.002


def write_model(path: Path, number: float, padding_bytes: int = 0) -> Path:
    """Write a model of `y = x · number`, with `padding_bytes` of weights that change nothing."""
    columns = max(1, padding_bytes // 4 // 8)
    weights = [
        numpy_helper.from_array(np.array([number], np.float32), "factor"),
        numpy_helper.from_array(np.zeros((8, columns), np.float32), "padding"),
        numpy_helper.from_array(np.array([-1]), "last"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "padding"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros", "last"], ["nothing"]),
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "nothing"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])]
    graph = helper.make_graph(nodes, "scale", inputs, outputs, weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
        ).SerializeToString()
    )
    return path


def models(folder: Path, count: int, padding_bytes: int = 0) -> list[dict[str, Any]]:
    """`models:` entries of `count` models, m0 and on."""
    return [
        {"name": f"m{i}", "uri": str(write_model(folder / f"m{i}.onnx", i, padding_bytes))}
        for i in range(count)
    ]


@contextlib.contextmanager
def serving(folder: Path, count: int, *others: dict[str, Any]) -> Iterator[running.Mesh]:
    """Run a mesh of two workers with `count` of these models, and the others, until the end."""
    document = {
        "pools": {"default": {"workers": 2, "memory": "1GiB"}},
        "models": [*models(folder, count), *others],
    }
    with running.mesh(document) as started:
        yield started


def request(number: int) -> pb.ModelInferRequest:
    asked = pb.ModelInferRequest(model_name=f"m{number}")
    asked.inputs.add(name="x", datatype="FP32", shape=X.shape)
    asked.raw_input_contents.append(X.tobytes())
    return asked


@dataclass
class Traffic:
    """Counts right answers; a fault is the time at which a request was sent, and its error."""

    answered: int = 0
    slowest_s: float = 0.0
    faults: list[tuple[float, str]] = field(default_factory=list)

    async def ask(self, stub: Any, number: int, timeout_s: float = 30) -> None:
        sent_s = time.monotonic()
        try:
            answer = await stub.ModelInfer(request(number), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            self.faults.append((sent_s, f"m{number}: {error.code().name}: {error.details()}"))
            return
        values = np.frombuffer(answer.raw_output_contents[0], np.float32)
        if np.allclose(values, X * number):
            self.answered += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - sent_s)
        else:
            self.faults.append((sent_s, f"m{number}: wrong answer {values}"))


def zipf(count: int, seed: int = 0) -> Callable[[], int]:
    """An endless choice of models: the first ones most often."""
    chance = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(count)]
    numbers = range(count)
    return lambda: chance.choices(numbers, weights)[0]


@contextlib.asynccontextmanager
async def flowing(listen: str, choose: Callable[[], int], per_s: float) -> AsyncIterator[Traffic]:
    """Send requests at a steady rate, however long answers take; at the end await them all."""
    traffic, sent, is_over = Traffic(), set(), asyncio.Event()

    async def send(stub: Any) -> None:
        begun_s, count = time.monotonic(), 0
        while not is_over.is_set():
            while count < (time.monotonic() - begun_s) * per_s:
                task = tasks.spawn(traffic.ask(stub, choose()), "ask", is_awaited=True)
                sent.add(task)
                task.add_done_callback(sent.discard)
                count += 1
            await asyncio.sleep(STEP_S)

    async with grpc.aio.insecure_channel(listen) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        sending = tasks.spawn(send(stub), "send", is_awaited=True)
        try:
            yield traffic
        finally:
            is_over.set()
            await sending
            await asyncio.gather(*sent)
