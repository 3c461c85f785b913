"""The error table while good predictions keep the workers busy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests.e2e import conftest, running, test_limits, test_loads, test_refusals

pytestmark = pytest.mark.edge

IN_FLIGHT = 16
ROUNDS = 5


class Traffic:
    """Number of good predictions in flight; each connection has its own row and answer."""

    def __init__(self, channel: grpc.Channel, lanes: int) -> None:
        self._stub = rpc.GRPCInferenceServiceStub(channel)
        self._left = threading.Semaphore(0)
        self._is_ended = False
        self._lanes = lanes
        self.answered = 0
        self.faults: list[str] = []
        self._messages = [self._message(lane) for lane in range(lanes)]
        self._answers = [
            list(self._stub.ModelInfer(message).raw_output_contents) for message in self._messages
        ]
        for lane in range(lanes):
            self._send(lane)

    @staticmethod
    def _message(lane: int) -> pb.ModelInferRequest:
        raw = np.array([lane + 1, 2, 3, 4], np.float32).tobytes()
        return pb.ModelInferRequest(
            model_name="linear", inputs=[test_refusals.X], raw_input_contents=[raw]
        )

    def _send(self, lane: int) -> None:
        self._stub.ModelInfer.future(self._messages[lane], timeout=30).add_done_callback(
            lambda call: self._done(lane, call)
        )

    def _done(self, lane: int, call: Any) -> None:
        if call.code() is not grpc.StatusCode.OK:
            self.faults.append(call.details())
        elif list(call.result().raw_output_contents) != self._answers[lane]:
            self.faults.append(f"lane {lane} got another answer")
        else:
            self.answered += 1
        if self._is_ended:
            self._left.release()
        else:
            self._send(lane)

    def end(self) -> None:
        self._is_ended = True
        for _ in range(self._lanes):
            assert self._left.acquire(timeout=60)


@contextlib.contextmanager
def busy(listen: str) -> Iterator[None]:
    """Run predictions on a connection of their own. Fails if one of them fails."""
    with grpc.insecure_channel(listen) as channel:
        traffic = Traffic(channel, IN_FLIGHT)
        try:
            yield
        finally:
            traffic.end()
    assert traffic.faults == []
    assert traffic.answered > IN_FLIGHT * ROUNDS


def moody(mesh: running.Mesh, channel: grpc.Channel) -> None:
    row = test_refusals.raw(
        [np.array([-1], np.float32).tobytes()],
        test_refusals.TENSORS(name="x", datatype="FP32", shape=[1]),
    )
    row.model_name = "moody"
    assert test_refusals.refusal(channel, row)[0] is grpc.StatusCode.INTERNAL
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [-1]}]}
    assert mesh.http.post("/v2/models/moody/infer", json=body).status_code == 500


def unloadable(mesh: running.Mesh, channel: grpc.Channel) -> None:
    error = test_loads.ask(channel, "corrupt")
    assert (error.code(), test_loads.REASONS["corrupt"] in error.details()) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        True,
    )
    assert mesh.http.post("/v2/models/corrupt/infer", json={"inputs": []}).status_code == 424


def too_big(mesh: running.Mesh, channel: grpc.Channel) -> None:
    message = test_refusals.raw([b"\0" * (conftest.REQUEST_BYTES_MAX + 1)], test_refusals.X)
    assert test_refusals.refusal(channel, message)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (
        mesh.http.post(
            "/v2/models/linear/infer", content=b" " * (conftest.REQUEST_BYTES_MAX + 1)
        ).status_code
        == 413
    )


def late(mesh: running.Mesh, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.GRPCInferenceServiceStub(channel).ModelInfer(
            test_limits.request("sleeper", 1.0, "late"), timeout=0.05
        )
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    answer = mesh.http.post(
        "/v2/models/sleeper/infer",
        json=test_limits.body(1.0, "late"),
        headers={"grpc-timeout": "50m"},
    )
    assert answer.status_code == 504


def test_every_error_is_the_same_as_without_load(mesh: running.Mesh, channel: grpc.Channel) -> None:
    with busy(mesh.listen):
        for _ in range(ROUNDS):
            for wrong in test_refusals.WRONGS:
                test_refusals.test_both_protocols_say_the_same(mesh, channel, wrong)
            for message, words in test_refusals.BROKEN.values():
                assert words in test_refusals.refusal(channel, message)[1]
            for kind in (moody, unloadable, too_big, late):
                kind(mesh, channel)
