"""Open-loop traffic from real gRPC clients, each answer held against numpy; and the tiny models that it asks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc

X = np.linspace(-1, 1, 8, dtype=np.float32)[None]
STEP_S = 0.002


def write_model(path: Path, number: float, padding_bytes: int = 0) -> Path:
    """`y = x · number`; `padding_bytes` of weights that it multiplies with and that change nothing."""
    columns = max(1, padding_bytes // 4 // 8)
    weights = [
        numpy_helper.from_array(np.float32([number]), "factor"),
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


def request(number):
    asked = pb.ModelInferRequest(model_name=f"m{number}")
    asked.inputs.add(name="x", datatype="FP32", shape=X.shape)
    asked.raw_input_contents.append(X.tobytes())
    return asked


@dataclass
class Traffic:
    """What came of the requests: when each was sent, and what was wrong with its answer, if anything."""

    answered: int = 0
    faults: list[tuple[float, str]] = field(default_factory=list)

    async def ask(self, stub, number, timeout_s=30):
        sent_s = time.monotonic()
        try:
            answer = await stub.ModelInfer(request(number), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            self.faults.append((sent_s, f"m{number}: {error.code().name}: {error.details()}"))
            return
        found = np.frombuffer(answer.raw_output_contents[0], np.float32)
        if np.allclose(found, X * number):
            self.answered += 1
        else:
            self.faults.append((sent_s, f"m{number}: wrong answer {found}"))


def zipf(count, seed=0):
    """An endless choice of models: the first ones most often."""
    chance = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(count)]
    numbers = range(count)
    return lambda: chance.choices(numbers, weights)[0]


@contextlib.asynccontextmanager
async def flowing(listen, choose, per_s):
    """Traffic that begins at once, at a steady rate however long answers take; at the end of the block every answer is awaited."""
    traffic, sent, is_over = Traffic(), set(), asyncio.Event()

    async def send(stub):
        begun_s, count = time.monotonic(), 0
        while not is_over.is_set():
            while count < (time.monotonic() - begun_s) * per_s:
                task = asyncio.get_running_loop().create_task(traffic.ask(stub, choose()))
                sent.add(task)
                task.add_done_callback(sent.discard)
                count += 1
            await asyncio.sleep(STEP_S)

    async with grpc.aio.insecure_channel(listen) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        sending = asyncio.get_running_loop().create_task(send(stub))
        try:
            yield traffic
        finally:
            is_over.set()
            await sending
            await asyncio.gather(*sent)
