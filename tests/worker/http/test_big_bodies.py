from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from meshserve import errors, tasks
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.protocol import inference, rest, v1
from meshserve.worker.http import big_bodies

THREAD, PROCESS = big_bodies.THREAD_BYTES_MIN, big_bodies.PROCESS_BYTES_MIN
HERE, OTHER_THREAD, OTHER_PROCESS = 0, THREAD, PROCESS


def v2_body(values: str, datatype: str = "FP32", size: int = 0) -> bytes:
    size = size or values.count(",") + 1
    tensor = f'{{"name":"x","datatype":"{datatype}","shape":[{size}],"data":[{values}]}}'
    outputs = '"outputs":[{"name":"y"}]'
    return f'{{"id":"7","parameters":{{"a":1}},"inputs":[{tensor}],{outputs}}}'.encode()


def place() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


async def test_the_size_decides_where_a_function_runs() -> None:
    bodies = big_bodies.BigBodies()
    assert await bodies.run(THREAD - 1, place) == place()
    for size_bytes in (THREAD, PROCESS - 1):
        pid, thread = await bodies.run(size_bytes, place)
        assert (pid, thread != threading.get_ident()) == (os.getpid(), True)
    assert await bodies.run(PROCESS, os.getpid) != os.getpid()


@pytest.mark.parametrize("size_bytes", [HERE, OTHER_THREAD, OTHER_PROCESS])
@pytest.mark.parametrize(
    ("values", "datatype"),
    [
        ("1.5,2,NaN,-Infinity,null", "FP32"),
        ('"a","größe",""', "BYTES"),
        ("1,18446744073709551615", "UINT64"),
        ("true,false", "BOOL"),
    ],
)
async def test_calls_are_the_same_wherever_they_are_decoded(
    size_bytes: int, values: str, datatype: str
) -> None:
    body = v2_body(values, datatype)
    expected = rest.decode_infer(body, ())
    decoded = await big_bodies.BigBodies().run(size_bytes, rest.decode_infer, body, [])
    ours, theirs = decoded.call.inputs["x"], expected.call.inputs["x"]
    assert (ours.datatype, ours.array.dtype) == (theirs.datatype, theirs.array.dtype)
    np.testing.assert_array_equal(ours.array, theirs.array)
    assert ours.array.flags.writeable == theirs.array.flags.writeable
    assert decoded.call.source == expected.call.source
    assert (decoded.call.outputs, decoded.call.id) == (("y",), "7")


@pytest.mark.parametrize("size_bytes", [HERE, OTHER_THREAD, OTHER_PROCESS])
async def test_errors_are_the_same_wherever_they_are_raised(size_bytes: int) -> None:
    with pytest.raises(errors.InvalidRequest, match="takes 3 elements, 2 came"):
        await big_bodies.BigBodies().run(size_bytes, rest.decode_infer, v2_body("1,2", size=3), [])


async def test_a_process_that_dies_is_an_error_and_the_next_one_works() -> None:
    bodies = big_bodies.BigBodies()
    with pytest.raises(errors.MeshError, match="ended with status 3"):
        await bodies.run(PROCESS, os._exit, 3)
    assert await bodies.run(PROCESS, len, "abc") == 3


def reply(outputs: Any) -> inference.InferReply:
    specs = tuple(
        model.TensorSpec(name, "BYTES" if array.dtype.hasobject else "FP32", (-1, -1))
        for name, array in outputs.items()
    )
    return inference.InferReply(
        "m", "1", "", outputs, model.Signature((), specs, has_batch_dimension=True)
    )


class OwnArray(np.ndarray):
    """A class that a process cannot import if it stands in a model's file."""


async def test_big_numbers_are_encoded_in_a_process_as_here() -> None:
    array = np.linspace(-1, 1, PROCESS // 4, dtype="f4").reshape(4, -1)
    array[0, :3] = np.nan, np.inf, -np.inf
    size_bytes, plain = big_bodies.answer_work(reply({"y": array.view(OwnArray)}))
    assert (size_bytes, type(plain.outputs["y"])) == (PROCESS, np.ndarray)
    v2 = rest.RestCall(inference.InferCall(""))
    answer = await big_bodies.BigBodies().run(size_bytes, rest.encode_infer, plain, v2)
    assert answer == rest.encode_infer(reply({"y": array}), v2)
    rows = v1.PredictCall(inference.InferCall(""), is_by_rows=True, rows=4)
    text = await big_bodies.BigBodies().run(size_bytes, v1.encode_predict, plain, rows)
    assert text == v1.encode_predict(reply({"y": array}), rows)


def test_objects_of_a_model_stay_in_this_process() -> None:
    numbers = np.zeros(PROCESS, "f4")
    said = model_runtime.AnswerTensors({"y": numbers}, {"a": object()})
    assert big_bodies.answer_work(reply(said))[0] == PROCESS - 1
    texts = np.array([["x" * PROCESS]], object)
    assert big_bodies.answer_work(reply({"y": texts}))[0] == PROCESS - 1
    many = np.array(["ab"] * THREAD, object)
    assert big_bodies.answer_work(reply({"y": many}))[0] >= THREAD
    assert big_bodies.answer_work(reply({"y": np.array([], object)}))[0] == 0


async def test_bodies_are_inflated_in_a_thread_and_never_over_the_limit() -> None:
    bodies = big_bodies.BigBodies()
    assert await bodies.inflate(b"{}", ()) == b"{}"
    headers = [(b"content-encoding", b"gzip"), (b"x-mesh-inflated-bytes-max", b"1000")]
    assert await bodies.inflate(gzip.compress(bytes(1000)), headers) == bytes(1000)
    with pytest.raises(errors.PayloadTooLarge):
        await bodies.inflate(gzip.compress(bytes(1 << 20)), headers)


@contextlib.asynccontextmanager
async def counting_turns() -> AsyncIterator[list[int]]:
    """Count the event loop's turns."""
    turns = [0]

    async def count() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0.001)

    task = tasks.spawn(count(), "turns")
    yield turns
    task.cancel()


BIG = 6 << 20
BODIES = {
    "numbers": v2_body(",".join(["1"] * (BIG // 2))),
    "one long text": v2_body('"' + "x" * BIG + '"', "BYTES"),
    "lists in lists": v2_body("[" * 500 + "1" + "]" * 500 + ",[1]" * (BIG // 4)),
    "texts": v2_body(",".join(['"a"'] * (BIG // 4)), "BYTES"),
    "objects": b'{"inputs":[' + b"{}," * (BIG // 3) + b"{}]}",
    "not JSON": b'{"inputs":[' + b"[1]," * (BIG // 4),
}


@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("path", ["/v2/models/doubled/infer", "/v1/models/doubled:predict"])
async def test_the_event_loop_turns_while_a_big_body_is_decoded(
    http: httpx.AsyncClient, kind: str, path: str, is_compressed: bool
) -> None:
    row = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    await http.post("/v2/models/doubled/infer", json={"inputs": [row]})
    body = gzip.compress(BODIES[kind], 1) if is_compressed else BODIES[kind]
    headers = {"content-encoding": "gzip"} if is_compressed else {}
    async with counting_turns() as turns:
        big = tasks.spawn(http.post(path, content=body, headers=headers), "big body")
        answered = 0
        while not big.done():
            small = await http.post("/v2/models/doubled/infer", json={"inputs": [row]})
            assert small.json()["outputs"][0]["data"] == [2.0, 4.0]
            answered += 1
    assert (await big).status_code == 400
    assert min(answered, turns[0]) > 10


async def test_big_calls_are_answered_rightly(http: httpx.AsyncClient) -> None:
    values = np.arange(400_000, dtype="f4").reshape(-1, 2)
    row = {"name": "x", "datatype": "FP32", "shape": list(values.shape)}
    body = orjson.dumps({"inputs": [row | {"data": values.ravel().tolist()}]})
    answer = await http.post("/v2/models/doubled/infer", content=body)
    [output] = orjson.loads(answer.content)["outputs"]
    assert output["shape"] == list(values.shape)
    np.testing.assert_array_equal(output["data"], values.ravel() * 2)
    by_rows = orjson.dumps({"instances": values.tolist()})
    answer = await http.post("/v1/models/doubled:predict", content=by_rows)
    np.testing.assert_array_equal(orjson.loads(answer.content)["predictions"], values * 2)
