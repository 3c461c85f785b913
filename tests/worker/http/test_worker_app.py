from __future__ import annotations

import asyncio
import urllib.parse

import pytest

from meshserve.core.values import model
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.worker.http import inference_grpc, inference_service
from meshserve.worker.models import batcher
from tests.worker import bench

SLOW = bench.DOUBLED.replace("class Model:", "import time\n\n    class Model:").replace(
    "            if", "            time.sleep(0.5)\n            if"
)
STATUS, MESSAGE = "x-mesh-grpc-status", "x-mesh-grpc-message"


async def call(http, message, path=bench.INFER, **headers):
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return await http.post(path, content=body, headers={**bench.CALL, **headers})


async def test_a_call_is_answered_with_a_bare_message(http):
    answer = await call(http, bench.infer(id="7"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/grpc")
    assert STATUS not in answer.headers
    told = pb.ModelInferResponse.FromString(answer.content)
    assert (told.model_name, told.model_version, told.id) == ("doubled", "1", "7")


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (bench.infer("größe"), "5", "'größe'"),
        (bench.infer(version="7"), "5", "version '7'"),
        (bench.infer(rows=[1.0]), "3", "must have 2 dimensions"),
        (bench.infer(rows=[[-1.0, 1]]), "13", "ValueError: no negative größe"),
        (b"\xff", "3", "not a ModelInferRequest"),
    ],
)
async def test_errors_of_calls_are_headers(http, message, code, words):
    answer = await call(http, message)
    assert (answer.status_code, answer.content, answer.headers[STATUS]) == (200, b"", code)
    assert words in urllib.parse.unquote(answer.headers[MESSAGE])


async def test_errors_of_rest_are_json(http):
    answer = await http.post("/v2/models/doubled/infer", content=b"{")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert "not JSON" in answer.json()["error"]
    assert (await http.get("/nothing")).status_code == 404


async def test_metadata_names_the_model(http):
    answer = await call(http, bench.infer("nobody"), **{"mm-model-id": "doubled"})
    assert pb.ModelInferResponse.FromString(answer.content).model_name == "doubled"


async def test_a_deadline_that_is_over_is_told(http, one, shelf):
    shelf.gate.clear()
    answer = await call(http, bench.infer(), **{"grpc-timeout": "20m"})
    assert answer.headers[STATUS] == "4"
    assert (await call(http, bench.infer(), **{"grpc-timeout": "soon"})).headers[STATUS] == "3"
    shelf.gate.set()
    assert one.app.load.kinds == {"DeadlineExceeded": 1, "InvalidRequest": 1}


async def test_a_worker_without_its_catalog_sends_everybody_away(http, one):
    one.app.is_synced = False
    assert (await http.get("/healthz")).status_code == 503
    assert (await call(http, bench.infer())).status_code == 503
    one.app.is_synced = True
    assert (await http.get("/healthz")).status_code == 200


async def test_draining_answers_what_came_and_refuses_what_comes(http, one, shelf):
    bench.told(one, *bench.declared(bench.spec("slow", shelf.put("slow", SLOW))))
    await call(http, bench.infer("slow"))
    under_way = asyncio.ensure_future(call(http, bench.infer("slow")))
    while not one.app.load.in_flight:  # noqa: ASYNC110 it is the server's count
        await asyncio.sleep(0.005)
    draining = asyncio.ensure_future(one.drain(20))
    await asyncio.sleep(0)
    refused = await call(http, bench.infer("slow"))
    assert (refused.status_code, "draining" in refused.json()["error"]) == (503, True)
    assert (await http.get("/healthz")).status_code == 503
    assert STATUS not in (await under_way).headers
    await draining
    assert one.app.load.in_flight == 0
    assert one.report().state == "draining"


@pytest.fixture
async def quick(http, one):
    """The worker's model in memory, its runs as short as a tiny model's; gives the counts of the worker and of the model."""
    id_ = model.ModelId("doubled")
    await call(http, bench.infer())
    resident = one.app._host.at_hand(id_)
    resident.runner = batcher.Batcher(
        resident.made.loaded, batcher.BatchLimits(1, 8, 1), pool=None, run_s=1e-6
    )
    one.app._methods = {}
    return one.app.load, one.app._host.tallies[id_]


async def test_what_is_quick_is_answered_without_a_task(http, quick):
    load, counts = quick
    told = pb.ModelInferResponse.FromString((await call(http, bench.infer(id="7"))).content)
    assert (told.model_name, told.id, load.requests, counts.success.count) == ("doubled", "7", 2, 2)
    named = await call(http, bench.infer("nobody"), **{"mm-model-id": "doubled"})
    assert (named.status_code, named.headers["content-type"], counts.success.count) == (
        200,
        "application/grpc",
        3,
    )


async def test_what_fails_at_once_is_told_and_counted_once(http, one, quick):
    load, counts = quick
    one.app._methods = inference_grpc.methods(inference_service.InferenceService(one.app._host))
    for message, code in (
        (bench.infer(rows=[1.0]), "3"),
        (bench.infer(rows=[[-1.0, 1]]), "13"),
        (b"\xff", "3"),
    ):
        assert (await call(http, message)).headers[STATUS] == code
    assert (await call(http, bench.infer(), **{"grpc-timeout": "soon"})).headers[STATUS] == "3"
    assert (load.requests, load.failures, counts.failure.count, load.in_flight) == (5, 4, 2, 0)


@pytest.mark.usefixtures("quick")
async def test_nothing_is_answered_at_once_while_it_drains(http, one):
    one.app.is_draining = True
    assert (await call(http, bench.infer())).status_code == 503


async def test_our_own_mistakes_are_answered_too(http, one, caplog):
    one.app._host.replica = None
    answer = await http.get("/v2/models/doubled")
    assert (answer.status_code, answer.json()) == (
        500,
        {"error": "the worker failed: AttributeError"},
    )
    assert (await call(http, bench.infer())).headers[STATUS] == "2"
    assert "/v2/models/doubled failed" in caplog.text


async def test_a_caller_who_leaves_early_is_no_error(one):
    reader, writer = await asyncio.open_unix_connection(one.address.socket_path)
    writer.write(
        b"POST /v2/models/doubled/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"
    )
    await writer.drain()
    while not one.app.load.in_flight:  # noqa: ASYNC110 it is the server's count
        await asyncio.sleep(0.005)
    writer.close()
    await asyncio.wait_for(one.app.wait_until_idle(), 10)
    assert one.app.load.failures == 0
    assert not await reader.read(1)
