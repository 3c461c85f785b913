"""Models that can't be loaded: their callers get the reason, other clients notice nothing."""

from __future__ import annotations

import re
import statistics
import threading
import time
from typing import Any, Self

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from meshserve.protocol.pb import inference_pb2 as pb
from tests.e2e import asking, behaviours, conftest, counting, running

pytestmark = pytest.mark.edge

INFER = "/inference.GRPCInferenceService/ModelInfer"
WORKER = "tight-0"
TOO_BIG = "of memory; this worker could free at most"
REASONS = {
    "corrupt": "onnx",
    "fails-to-load": f"model.py:12: RuntimeError: {behaviours.BLAME}",
    "hangs": f"the load has not ended within {behaviours.LOAD_TIMEOUT_S:g} s",
    "huge": TOO_BIG,
    "takes-too-much": TOO_BIG,
}


def ask(channel: grpc.Channel, name: str) -> grpc.RpcError:
    """Return the error of a prediction with this model."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(
            pb.ModelInferRequest(model_name=name).SerializeToString(), timeout=60
        )
    return caught.value


def ask_small(client: Any) -> None:
    rows = np.ones((1, 4), np.float32)
    assert client.infer("small", [asking.over_grpc("x", rows, "FP32")]).as_numpy("y").tolist() == [
        [28, 56]
    ]


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_is_the_error_of_both_protocols(
    mesh: running.Mesh, channel: grpc.Channel, name: str
) -> None:
    error = ask(channel, name)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert REASONS[name] in error.details()
    assert "Traceback" not in error.details()
    over_rest = mesh.http.post(f"/v2/models/{name}/infer", json={"inputs": []})
    assert over_rest.status_code == 424
    assert without_sizes(over_rest.json()["error"]) == without_sizes(error.details())


def without_sizes(words: str) -> str:
    """Return the message without numbers that change from moment to moment."""
    return re.sub(r"[\d.]+ MiB", "", words)


def test_triton_clients_get_the_reason(over_grpc: tritonclient.grpc.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="RuntimeError") as caught:
        over_grpc.get_model_metadata("fails-to-load")
    assert caught.value.status() == "StatusCode.FAILED_PRECONDITION"
    assert behaviours.BLAME in caught.value.message()


def test_a_failed_load_is_repeated_later_and_not_by_each_request(
    mesh: running.Mesh, channel: grpc.Channel, models: conftest.Models
) -> None:
    ask(channel, "fails-to-load")
    tries, asked = len(models.noted("fails-to-load")), 40
    waits = [asking.retry_s(ask(channel, "fails-to-load")) for _ in range(asked)]
    assert len(models.noted("fails-to-load")) - tries <= asked // 8
    assert all(wait is not None and wait > 0 for wait in waits)
    over_rest = mesh.http.post("/v1/models/fails-to-load:predict", json={"instances": [1]})
    assert over_rest.status_code == 424
    assert int(over_rest.headers["retry-after"]) >= 1


def test_a_hanging_load_is_started_once(channel: grpc.Channel, models: conftest.Models) -> None:
    for _ in range(5):
        assert ask(channel, "hangs").code() is grpc.StatusCode.FAILED_PRECONDITION
    assert len(models.noted("hangs")) == 1


def test_a_model_that_is_too_big_is_not_loaded_again(
    channel: grpc.Channel, models: conftest.Models
) -> None:
    for _ in range(5):
        ask(channel, "takes-too-much")
    assert len(models.noted("takes-too-much")) == 1


def test_failed_models_are_listed_with_their_reason(
    mesh: running.Mesh, channel: grpc.Channel, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    ask(channel, "corrupt")
    assert not over_grpc.is_model_ready("corrupt")
    shown = mesh.model("corrupt")
    assert shown["state"] == "failed"
    assert "onnx" in shown["reason"]


def test_other_clients_notice_nothing(
    mesh: running.Mesh, channel: grpc.Channel, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    ask_small(over_grpc)
    before = {
        name: counting.total(mesh, f"meshserve_{name}_total", worker=WORKER)
        for name in ("evictions", "loads")
    }
    calm_s = latencies(over_grpc)
    with bothering(mesh, channel) as bothered:
        bothered_s = latencies(over_grpc)
    assert bothered.calls > 0
    assert statistics.median(bothered_s) < 10 * statistics.median(calm_s)
    assert counting.total(mesh, "meshserve_evictions_total", worker=WORKER) == before["evictions"]
    assert mesh.model("small")["state"] == "ready"


def test_a_load_that_is_too_big_evicts_no_model(
    mesh: running.Mesh,
    channel: grpc.Channel,
    over_grpc: tritonclient.grpc.InferenceServerClient,
    models: conftest.Models,
) -> None:
    ask_small(over_grpc)
    loads = counting.total(mesh, "meshserve_loads_total", worker=WORKER)
    evictions = counting.total(mesh, "meshserve_evictions_total", worker=WORKER)
    entry = next(entry for entry in mesh.document["models"] if entry["name"] == "takes-too-much")
    again = {
        **entry,
        "name": "takes-too-much-again",
        "options": {**entry["options"], "again": True},
    }
    mesh.http.put("/mesh/v1/models/takes-too-much-again", json=again).raise_for_status()
    tries = len(models.noted("takes-too-much"))
    assert TOO_BIG in ask(channel, "takes-too-much-again").details()
    assert len(models.noted("takes-too-much")) == tries + 1
    ask_small(over_grpc)
    assert counting.total(mesh, "meshserve_evictions_total", worker=WORKER) == evictions
    assert counting.total(mesh, "meshserve_loads_total", worker=WORKER) <= loads + 1


def latencies(client: Any, times: int = 300) -> list[float]:
    states = []
    for _ in range(times):
        began_s = time.perf_counter()
        ask_small(client)
        states.append(time.perf_counter() - began_s)
    return states


class bothering:  # noqa: N801 a context that reads as a verb
    """Send requests for every model that can't be loaded until the block ends."""

    def __init__(self, mesh: running.Mesh, channel: grpc.Channel) -> None:
        self.calls = 0
        self._listen = mesh.listen
        self._channel = channel
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._bother)

    def _bother(self) -> None:
        while not self._is_over.is_set():
            for name in REASONS:
                ask(self._channel, name)
                self.calls += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
