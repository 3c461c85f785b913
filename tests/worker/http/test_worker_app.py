from __future__ import annotations

import asyncio
import base64
import math
import urllib.parse
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors, tasks
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model, model_stats
from meshserve.protocol import inference, paths
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.worker import worker
from meshserve.worker.http import worker_app
from tests.protocol import drawn
from tests.worker import helpers

SLOW = helpers.DOUBLED.replace("class Model:", "import time\n\n    class Model:").replace(
    "            if", "            time.sleep(0.5)\n            if"
)
INFER = paths.MODEL_INFER.encode()
STATUS, MESSAGE = "x-mesh-grpc-status", "x-mesh-grpc-message"


class Raising(model_runtime.LoadedModel):
    """A model whose code fails."""

    calls = 0

    def predict(
        self, _inputs: model_runtime.Tensors, _outputs: Sequence[str]
    ) -> model_runtime.Tensors:
        self.calls += 1
        raise ValueError("broken")

    def close(self) -> None:
        pass


def later() -> float:
    return asyncio.get_running_loop().time() + 20


async def call(
    http: httpx.AsyncClient, message: Any, path: str = helpers.INFER, **headers: Any
) -> httpx.Response:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return await http.post(path, content=body, headers={**helpers.CALL, **headers})


async def test_a_call_is_answered_with_a_bare_message(http: httpx.AsyncClient) -> None:
    answer = await call(http, helpers.infer(id="7"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/grpc")
    assert STATUS not in answer.headers
    reply = pb.ModelInferResponse.FromString(answer.content)
    assert (reply.model_name, reply.model_version, reply.id) == ("doubled", "1", "7")


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (helpers.infer("größe"), "5", "'größe'"),
        (helpers.infer(version="7"), "5", "version '7'"),
        (helpers.infer(rows=[1.0]), "3", "must have 2 dimensions"),
        (helpers.infer(rows=[[-1.0, 1]]), "13", "ValueError: no negative größe"),
        (b"\xff", "3", "not a ModelInferRequest"),
    ],
)
async def test_errors_of_calls_are_headers(
    http: httpx.AsyncClient, message: bytes | pb.ModelInferRequest, code: str, words: str
) -> None:
    answer = await call(http, message)
    assert (answer.status_code, answer.content, answer.headers[STATUS]) == (200, b"", code)
    assert words in urllib.parse.unquote(answer.headers[MESSAGE])


async def test_errors_of_rest_are_json(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v2/models/doubled/infer", content=b"{")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert "not JSON" in answer.json()["error"]
    assert (await http.get("/nothing")).status_code == 404


async def test_metadata_names_the_model(http: httpx.AsyncClient) -> None:
    answer = await call(http, helpers.infer("nobody"), **{"mm-model-id": "doubled"})
    assert pb.ModelInferResponse.FromString(answer.content).model_name == "doubled"


async def test_a_passed_deadline_is_answered(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker, storage: helpers.FakeStorage
) -> None:
    storage.gate.clear()
    answer = await call(http, helpers.infer(), **{"grpc-timeout": "20m"})
    assert answer.headers[STATUS] == "4"
    assert (await call(http, helpers.infer(), **{"grpc-timeout": "soon"})).headers[STATUS] == "3"
    storage.gate.set()
    assert pool_worker.app.load.failures_by_kind == {"DeadlineExceeded": 1, "InvalidRequest": 1}


async def test_a_worker_without_its_catalog_refuses_requests(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker
) -> None:
    pool_worker.app.is_synced = False
    assert (await http.get("/healthz")).status_code == 503
    assert (await call(http, helpers.infer())).status_code == 503
    pool_worker.app.is_synced = True
    assert (await http.get("/healthz")).status_code == 200


async def test_a_draining_worker_answers_old_requests_and_refuses_new_ones(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker, storage: helpers.FakeStorage
) -> None:
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("slow", storage.put("slow", SLOW))))
    await call(http, helpers.infer("slow"))
    under_way = tasks.spawn(call(http, helpers.infer("slow")), "call", is_awaited=True)
    while not pool_worker.app.load.in_flight:  # noqa: ASYNC110 it is the server's count
        await asyncio.sleep(0.005)
    draining = tasks.spawn(pool_worker.drain(20), "drain", is_awaited=True)
    await asyncio.sleep(0)
    refused = await call(http, helpers.infer("slow"))
    assert (refused.status_code, "draining" in refused.json()["error"]) == (503, True)
    assert (await http.get("/healthz")).status_code == 503
    assert STATUS not in (await under_way).headers
    await draining
    assert pool_worker.app.load.in_flight == 0
    assert pool_worker.report().state == "draining"


@pytest.fixture
async def quick(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker
) -> tuple[worker_app.WorkerLoad, model_stats.ModelStats]:
    """The worker's model in memory, its runs as short as a tiny model's; returns the counters."""
    id_ = model.ModelId("doubled")
    await call(http, helpers.infer())
    helpers.make_quick(pool_worker.host, id_)
    return pool_worker.app.load, pool_worker.host.stats[id_]


async def test_a_quick_prediction_creates_no_task(
    pool_worker: worker.PoolWorker, quick: tuple[worker_app.WorkerLoad, model_stats.ModelStats]
) -> None:
    load, stats = quick
    body = helpers.infer(id="7").SerializeToString()
    tasks = asyncio.all_tasks()
    answer = pool_worker.app.handle("POST", INFER, [], body)
    assert isinstance(answer, tuple)
    status, headers, message = answer
    assert (status, headers) == (200, ((b"content-type", b"application/grpc"),))
    assert pb.ModelInferResponse.FromString(message).id == "7"
    assert (load.requests, load.in_flight, stats.success.count) == (2, 0, 2)
    assert asyncio.all_tasks() == tasks


async def test_a_failure_is_answered_and_counted_once(
    http: httpx.AsyncClient, quick: tuple[worker_app.WorkerLoad, model_stats.ModelStats]
) -> None:
    load, stats = quick
    for message, code in (
        (helpers.infer(rows=[1.0]), "3"),
        (helpers.infer(rows=[[-1.0, 1]]), "13"),
        (b"\xff", "3"),
    ):
        assert (await call(http, message)).headers[STATUS] == code
    assert (await call(http, helpers.infer(), **{"grpc-timeout": "soon"})).headers[STATUS] == "3"
    assert (load.requests, load.failures, stats.failure.count, load.in_flight) == (5, 4, 2, 0)


async def test_a_model_that_raises_runs_once(
    http: httpx.AsyncClient,
    pool_worker: worker.PoolWorker,
    quick: tuple[worker_app.WorkerLoad, model_stats.ModelStats],
) -> None:
    resident = await pool_worker.host.lease(model.ModelId("doubled"), later())
    pool_worker.host.release(resident)
    runs = quick[1].computed.count
    raising = resident.batcher._loaded = Raising()
    answer = await call(http, helpers.infer())
    assert (answer.headers[STATUS], raising.calls) == ("13", 1)
    assert quick[1].computed.count == runs


@pytest.mark.usefixtures("quick")
async def test_a_draining_worker_refuses_quick_predictions_too(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker
) -> None:
    pool_worker.app.is_draining = True
    assert (await call(http, helpers.infer())).status_code == 503


async def test_an_internal_error_is_answered_and_logged(
    http: httpx.AsyncClient,
    pool_worker: worker.PoolWorker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_worker.host, "_follower", None)
    answer = await http.get("/v2/models/doubled")
    assert (answer.status_code, answer.json()) == (
        500,
        {"error": "the worker failed: AttributeError"},
    )
    assert (await call(http, helpers.infer())).headers[STATUS] == "2"
    assert "/v2/models/doubled failed" in caplog.text


async def test_a_client_that_leaves_early_is_no_request(pool_worker: worker.PoolWorker) -> None:
    reader, writer = await asyncio.open_unix_connection(pool_worker.address.socket_path)
    writer.write(
        b"POST /v2/models/doubled/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"
    )
    await writer.drain()
    writer.close()
    assert not await reader.read(1)
    assert (pool_worker.app.load.requests, pool_worker.app.load.failures) == (0, 0)


@pytest.mark.parametrize(
    ("name", "message", "response"),
    [
        ("ModelReady", pb.ModelReadyRequest(name="doubled"), pb.ModelReadyResponse),
        ("ModelMetadata", pb.ModelMetadataRequest(name="doubled"), pb.ModelMetadataResponse),
        ("ModelConfig", pb.ModelConfigRequest(name="doubled"), pb.ModelConfigResponse),
        ("ModelStatistics", pb.ModelStatisticsRequest(name="doubled"), pb.ModelStatisticsResponse),
    ],
)
async def test_each_method_answers(
    http: httpx.AsyncClient, name: str, message: Any, response: Any
) -> None:
    path = paths.INFERENCE + name
    answer = await call(http, message, path)
    assert (answer.status_code, STATUS in answer.headers) == (200, False)
    assert response.FromString(answer.content) != response()
    message.name = "nobody"
    named = await call(http, message, path, **{"mm-model-id": "doubled"})
    assert named.content == answer.content
    garbage = await call(http, b"\xff\xff", path)
    assert (garbage.headers[STATUS], "Request" in garbage.headers[MESSAGE]) == ("3", True)


# Requests


def request(*headers: tuple[bytes, bytes]) -> Any:
    return worker_app.InferenceRequest("POST", b"/v2/models/a%2Fb/infer", headers, b"body")


async def test_a_request_without_a_deadline_never_expires() -> None:
    asked = request()
    assert (asked.path, asked.method, asked.body) == (b"/v2/models/a%2Fb/infer", "POST", b"body")
    assert (asked.headers, asked.metadata_model) == ((), "")
    assert left_s(asked) == math.inf


def left_s(asked: worker_app.InferenceRequest) -> float:
    return asked.expires_s - asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("value", "timeout_s"),
    [
        (b"2H", 7200),
        (b"3M", 180),
        (b"4S", 4),
        (b"500m", 0.5),
        (b"7u", 7e-6),
        (b"99999999n", 0.099999999),
        (b"0m", 0),
    ],
)
async def test_a_deadline_counts_from_the_arrival(value: bytes, timeout_s: float) -> None:
    assert left_s(request((b"grpc-timeout", value))) == pytest.approx(timeout_s, abs=1)
    assert worker_app._timeout_s(value) == pytest.approx(timeout_s)


@pytest.mark.parametrize(
    "value",
    [b"", b"5", b"m", b"5s", b"-1m", b"1.5S", b"123456789m", b" 1m", "\u0663m".encode(), b"\xff"],
)
async def test_a_timeout_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(errors.InvalidRequest, match="is not a number and one of H, M, S, m, u, n"):
        request((b"grpc-timeout", value))


BINARY = base64.b64encode("modèle".encode())


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ([(b"mm-other", b"x"), (b"model", b"y")], ""),
        ([(b"mm-model-id", b"a")], "a"),
        ([(b"mm-model-id", b"a"), (b"mm-vmodel-id", b"v")], "v"),
        ([(b"mm-model-id-bin", BINARY)], "modèle"),
        ([(b"mm-vmodel-id-bin", BINARY.rstrip(b"=")), (b"mm-model-id", b"a")], "modèle"),
        ([(b"mm-model-id", "modèle".encode())], "modèle"),
    ],
)
async def test_metadata_may_name_a_model(headers: list[tuple[bytes, bytes]], name: str) -> None:
    assert request(*headers).metadata_model == name


@pytest.mark.parametrize("value", [b"?", b"a", base64.b64encode(b"\xff")])
async def test_binary_metadata_that_is_no_name_is_refused(value: bytes) -> None:
    with pytest.raises(errors.InvalidRequest, match="is not base64 of UTF-8"):
        request((b"mm-model-id-bin", value))


@drawn.often
@given(
    st.binary(max_size=12),
    st.sampled_from([b"mm-model-id", b"mm-model-id-bin", b"mm-vmodel-id-bin"]),
)
def test_any_header_is_answered(value: bytes, name: bytes) -> None:
    drawn.answers(worker_app._timeout_s, value)
    drawn.answers(worker_app._metadata_model, [(name, value)])


# Counters


def test_answers_are_counted_by_their_latency() -> None:
    load = worker_app.WorkerLoad()
    for took_s in (0.0001, 0.0005, 0.0007, 40.0):
        load.record_answer(took_s)
    assert (load.latency_counts[:2], load.latency_counts[-1]) == ([2, 1], 1)
    assert (sum(load.latency_counts), load.requests) == (4, 4)
    assert load.latency_total_s == 0.0001 + 0.0005 + 0.0007 + 40.0


def test_failures_are_counted_by_their_kind() -> None:
    load = worker_app.WorkerLoad()
    load.record_failure("InvalidRequest")
    load.record_failure("InvalidRequest")
    assert (load.failures, load.failures_by_kind) == (2, {"InvalidRequest": 2})


async def test_an_unknown_model_is_not_ready(http: httpx.AsyncClient) -> None:
    for name, version, is_ready in (
        ("doubled", "", True),
        ("nobody", "", False),
        ("doubled", "9", False),
    ):
        message = pb.ModelReadyRequest(name=name, version=version)
        answer = await call(http, message, paths.MODEL_READY)
        assert pb.ModelReadyResponse.FromString(answer.content).ready is is_ready


@pytest.mark.parametrize("platform", ["python", "onnxruntime_onnx", "sklearn"])
def test_typed_contents_are_answered_in_kind_but_by_models_of_triton(platform: str) -> None:
    array = np.array([1], np.float32)
    specs = (model.TensorSpec("y", "FP32", (1,)),)
    signature = model.Signature((), specs, platform=platform)
    reply = inference.InferReply("m", "1", "", {"y": array}, signature)
    typed = inference.InferCall("m", is_raw=False)
    message = pb.ModelInferResponse.FromString(worker_app.encode_reply(typed, reply))
    assert bool(message.raw_output_contents) is (platform != "sklearn")
    raw = pb.ModelInferResponse.FromString(worker_app.encode_reply(inference.InferCall("m"), reply))
    assert list(raw.raw_output_contents) == [array.tobytes()]


async def test_classes_are_answered_over_grpc(http: httpx.AsyncClient) -> None:
    message = helpers.infer(outputs=[{"name": "y"}])
    message.outputs[0].parameters["classification"].int64_param = 2
    reply = pb.ModelInferResponse.FromString((await call(http, message)).content)
    assert (reply.outputs[0].datatype, list(reply.outputs[0].shape)) == ("BYTES", [1, 2])
    assert reply.raw_output_contents[0] == b"".join(
        len(text).to_bytes(4, "little") + text for text in (b"4.000000:1", b"2.000000:0")
    )


@pytest.mark.parametrize(("attempt", "looks"), [(None, 0), ("1", 0), ("2", 1), ("6", 1)])
async def test_a_retry_makes_the_worker_look_for_deaths_before_it_runs_anything(
    http: httpx.AsyncClient,
    pool_worker: worker.PoolWorker,
    monkeypatch: pytest.MonkeyPatch,
    attempt: str | None,
    looks: int,
) -> None:
    for ticking in pool_worker._ticking:
        ticking.cancel()
    await call(http, helpers.infer())
    looked: list[bool] = []
    monkeypatch.setattr(pool_worker.host.trials, "look_for_deaths", lambda: looked.append(True))
    headers = {"x-envoy-attempt-count": attempt} if attempt else {}
    for answer in (
        await call(http, helpers.infer(), **headers),
        await http.get("/v2/models/doubled", headers=headers),
    ):
        assert answer.status_code == 200
    assert len(looked) == 2 * looks
