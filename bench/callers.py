"""Put load on a server from real Python clients, in a process of its own that prints JSON.

Every answer is compared with the right one. These clients cost many times what h2load costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc import aio as triton

from bench import served
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
CALL_S_MAX = 60
Ask = Callable[[], Awaitable[np.ndarray]]


class CallFailed(Exception):
    """The clients' process ended with an error, or an answer was wrong."""


@dataclass(frozen=True)
class Calls:
    """The server and the load; `kind` is tritonclient or grpc.aio."""

    endpoint: str
    model: str
    kind: str
    in_flight: int
    requests: int
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Seen:
    """The figures of one run."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


def run(calls: Calls, row: Path) -> Seen:
    """Run the load in a process of its own. Raises CallFailed.

    `row` is an .npz with the input `x` and the right answer `y`.
    """
    command = served.own_program("callers", json.dumps(asdict(calls)), row)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise CallFailed(
            done.stderr.strip().splitlines()[-1]
            if done.stderr.strip()
            else f"exit code {done.returncode}"
        )
    return Seen(**json.loads(done.stdout))


async def by_tritonclient(
    calls: Calls, x: np.ndarray, work: Callable[[Ask], Awaitable[None]]
) -> None:
    """Call as tritonclient's users do, with a new InferInput a request; `x` has shape (rows, n)."""

    async def ask() -> np.ndarray:
        tensor = InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        answer = await client.infer(
            calls.model, [tensor], headers=dict(calls.metadata), client_timeout=CALL_S_MAX
        )
        return np.asarray(answer.as_numpy("y"))

    async with triton.InferenceServerClient(calls.endpoint) as client:
        await work(ask)


async def by_grpc(calls: Calls, x: np.ndarray, work: Callable[[Ask], Awaitable[None]]) -> None:
    """Call through generated stubs, with a new message a request; `x` has shape (rows, n)."""
    raw_x, metadata = x.tobytes(), tuple(calls.metadata.items())

    async def ask() -> np.ndarray:
        request = pb.ModelInferRequest(model_name=calls.model, raw_input_contents=[raw_x])
        request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        answer = await stub.ModelInfer(request, timeout=CALL_S_MAX, metadata=metadata)
        return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(
            tuple(answer.outputs[0].shape)
        )

    async with grpc.aio.insecure_channel(calls.endpoint, options=UNLIMITED) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        await work(ask)


KINDS = {"tritonclient": by_tritonclient, "grpc.aio": by_grpc}


async def keep_in_flight(calls: Calls, x: np.ndarray, y: np.ndarray) -> Seen:
    """Keep `in_flight` requests in flight until all are answered.

    `x` and `y` are a FP32 input and its answer, of shapes (rows, n) and (rows, m). Raises
    AssertionError for a wrong answer.
    """
    took_ms: list[float] = []
    elapsed_s = 0.0

    async def caller(ask: Ask, left: Iterator[int]) -> None:
        for _ in left:
            began_s = time.perf_counter()
            answer = await ask()
            took_ms.append((time.perf_counter() - began_s) * 1e3)
            np.testing.assert_allclose(answer, y, rtol=1e-4, atol=1e-5)

    async def work(ask: Ask) -> None:
        nonlocal elapsed_s
        await ask()
        began_s, left = time.perf_counter(), iter(range(calls.requests))
        async with asyncio.TaskGroup() as callers:
            for _ in range(calls.in_flight):
                callers.create_task(caller(ask, left))
        elapsed_s = time.perf_counter() - began_s

    await KINDS[calls.kind](calls, x, work)
    p50_ms, p99_ms = (float(p) for p in np.percentile(took_ms, [50, 99]))
    return Seen(len(took_ms) / elapsed_s, p50_ms, p99_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", type=lambda text: Calls(**json.loads(text)))
    parser.add_argument("row", type=Path)
    args = parser.parse_args()
    with np.load(args.row) as row:
        print(json.dumps(asdict(asyncio.run(keep_in_flight(args.calls, row["x"], row["y"])))))


if __name__ == "__main__":
    main()
