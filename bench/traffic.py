"""Send requests to many tiny models, a number in flight or a number a second.

Every answer is compared with the same sum in numpy.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench import tiny
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc

X = np.linspace(-1, 1, tiny.INPUTS, dtype=np.float32)[None]
RAW_X = X.tobytes()
CALL_S_MAX = 60
CHANNELS = 4
UNSHARED = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True)
class Asked:
    """One request: its model, its time since it was due, and what was wrong with the answer."""

    model: int
    took_ms: float
    fault: str = ""


def name(number: int) -> str:
    """Return the model's name in the repository."""
    return f"tiny-{number:05d}"


def write_repository(folder: Path, count: int) -> None:
    """Write `name/1/model.onnx`: Triton's layout."""
    for number in range(count):
        tiny.write(folder / name(number) / "1" / "model.onnx", number)


class Callers:
    """Ask one mesh for its tiny models over several connections."""

    def __init__(self, stubs: Sequence[Any], count: int) -> None:
        self._stubs = stubs
        self._expected = [tiny.answer(number, X)[0] for number in range(count)]

    async def ask(self, number: int, due_s: float | None = None) -> Asked:
        """Send one request, timed from `due_s` on time.perf_counter's clock, or from now."""
        request = pb.ModelInferRequest(model_name=name(number), raw_input_contents=[RAW_X])
        request.inputs.add(name="x", datatype="FP32", shape=X.shape)
        began_s = time.perf_counter() if due_s is None else due_s
        try:
            answer = await self._stubs[number % len(self._stubs)].ModelInfer(
                request, timeout=CALL_S_MAX
            )
        except grpc.RpcError as failure:
            return Asked(
                number,
                (time.perf_counter() - began_s) * 1e3,
                f"{failure.code().name}: {failure.details()}",
            )
        took_ms = (time.perf_counter() - began_s) * 1e3
        y = np.frombuffer(answer.raw_output_contents[0], np.float32)
        is_right = np.allclose(y, self._expected[number], rtol=1e-4, atol=1e-5)
        return Asked(number, took_ms, "" if is_right else "wrong answer")

    async def each(self, numbers: Sequence[int], in_flight: int) -> list[Asked]:
        """Ask for these models in this order, `in_flight` at a time."""
        asked: list[Asked] = []
        left = iter(numbers)

        async def caller() -> None:
            for number in left:
                asked.append(await self.ask(number))  # noqa: PERF401 - several append to it

        async with asyncio.TaskGroup() as callers:
            for _ in range(in_flight):
                callers.create_task(caller())
        return asked

    async def closed(self, count: int, seconds: float, in_flight: int) -> list[Asked]:
        """Ask for random ones of the first `count` models, `in_flight` at a time.

        Returns them in the order of their answers.
        """
        asked: list[Asked] = []
        end_s = time.monotonic() + seconds

        async def caller(seed: int) -> None:
            chance = np.random.default_rng(seed)
            while time.monotonic() < end_s:
                asked.append(await self.ask(int(chance.integers(count))))

        async with asyncio.TaskGroup() as callers:
            for seed in range(in_flight):
                callers.create_task(caller(seed))
        return asked

    async def open(self, numbers: Sequence[int], per_s: float) -> list[Asked]:
        """Ask for each model when it is due, `per_s` a second, however long others take."""
        tasks: list[asyncio.Task[Asked]] = []
        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for place, number in enumerate(numbers):
                due_s = began_s + place / per_s
                if (early_s := due_s - time.perf_counter()) > 0:
                    await asyncio.sleep(early_s)
                tasks.append(group.create_task(self.ask(number, due_s)))
        return [task.result() for task in tasks]


@contextlib.asynccontextmanager
async def callers(endpoint: str, count: int) -> AsyncIterator[Callers]:
    """Open callers of a mesh that serves the first `count` models.

    This program's own garbage collector is off: its passes would count as the mesh's pauses.
    """
    async with contextlib.AsyncExitStack() as stack:
        gc.disable()
        stack.callback(gc.enable)
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(endpoint, options=UNSHARED))
            for _ in range(CHANNELS)
        ]
        yield Callers([rpc.GRPCInferenceServiceStub(channel) for channel in channels], count)


def failures(asked: Sequence[Asked]) -> list[str]:
    """Return what was wrong, with the model's name."""
    return [f"{name(request.model)}: {request.fault}" for request in asked if request.fault]


def reuse_distances(models: Sequence[int]) -> list[int]:
    """Return for each request how many other models were asked since its model; -1 for a first.

    A Fenwick tree over the requests marks each model's latest one: marks after a place are models
    that were asked since.
    """
    tree = np.zeros(len(models) + 1, np.int64)
    latest: dict[int, int] = {}
    distances: list[int] = []

    def add(place: int, amount: int) -> None:
        while place < len(tree):
            tree[place] += amount
            place += place & -place

    def before(place: int) -> int:
        total = 0
        while place:
            total += int(tree[place])
            place -= place & -place
        return total

    for place, model in enumerate(models, start=1):
        last = latest.get(model)
        distances.append(-1 if last is None else len(latest) - before(last))
        if last is not None:
            add(last, -1)
        add(place, 1)
        latest[model] = place
    return distances


def kinds(asked: Sequence[Asked], resident: int) -> dict[str, np.ndarray]:
    """Return milliseconds, shape (requests,), of all, of certainly resident and evicted models.

    A model was evicted if that many others were asked since its last request; it can't have been if
    only that few were.
    """
    took_ms = np.array([request.took_ms for request in asked])
    distances = np.array(reuse_distances([request.model for request in asked]))
    return {
        "all": took_ms,
        "resident": took_ms[(distances >= 0) & (distances < resident // 2)],
        "evicted before": took_ms[distances > 2 * resident],
        "first request": took_ms[distances < 0],
    }
