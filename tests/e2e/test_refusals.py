"""Errors of a request are the same over gRPC and REST: code, status and message."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests.e2e import asking, behaviours, conftest, running, zoo

pytestmark = pytest.mark.edge

INFER = "/inference.GRPCInferenceService/ModelInfer"
BAD = (grpc.StatusCode.INVALID_ARGUMENT, 400)
UNKNOWN = (grpc.StatusCode.NOT_FOUND, 404)
ROW = [1.0, 2.0, 3.0, 4.0]
TENSORS = pb.ModelInferRequest.InferInputTensor


@dataclass(frozen=True)
class Wrong:
    """One mistake in a typed request for `linear`, which takes FP32 `x` [-1, 4]."""

    why: str
    words: str
    kind: tuple[grpc.StatusCode, int] = BAD
    model: str = "linear"
    version: str = ""
    name: str = "x"
    datatype: str = "FP32"
    shape: tuple[int, ...] = (1, 4)
    data: list[float] = field(default_factory=lambda: ROW)
    outputs: tuple[str, ...] = ()
    twice: bool = False

    def message(self) -> pb.ModelInferRequest:
        contents = pb.InferTensorContents()
        getattr(contents, {"FP64": "fp64_contents"}.get(self.datatype, "fp32_contents")).extend(
            self.data
        )
        tensor = TENSORS(
            name=self.name, datatype=self.datatype, shape=self.shape, contents=contents
        )
        outputs = [
            pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in self.outputs
        ]
        inputs = [tensor] * (2 if self.twice else 1)
        return pb.ModelInferRequest(
            model_name=self.model, model_version=self.version, inputs=inputs, outputs=outputs
        )

    def body(self) -> dict[str, Any]:
        tensor = {
            "name": self.name,
            "datatype": self.datatype,
            "shape": self.shape,
            "data": self.data,
        }
        return {
            "inputs": [tensor] * (2 if self.twice else 1),
            "outputs": [{"name": name} for name in self.outputs],
        }

    def path(self) -> str:
        return (
            f"/v2/models/{self.model}"
            + (f"/versions/{self.version}" if self.version else "")
            + "/infer"
        )


WRONGS = (
    Wrong("unknown model", "'größe-模型'", UNKNOWN, model="größe-模型"),
    Wrong("unknown version", "version '9'", UNKNOWN, version="9"),
    Wrong(
        "unknown input", "input 'x' (FP32 [-1, 4]) is missing; 'x ' came, is it meant?", name="x "
    ),
    Wrong("datatype", "input 'x' must be FP32, FP64 came", datatype="FP64"),
    Wrong("no datatype", "datatype 'FP31' is unknown; there are: BOOL", datatype="FP31"),
    Wrong(
        "rank", "input 'x' must have 2 dimensions, [-1, 4] (-1 is any size); [4] came", shape=(4,)
    ),
    Wrong(
        "fixed size",
        "input 'x' must have the shape [-1, 4] (-1 is any size); [2, 2] came",
        shape=(2, 2),
    ),
    Wrong("too few elements", "input 'x' of shape [1, 4] takes 4 elements, 3 came", data=ROW[:3]),
    Wrong("too many elements", "input 'x' of shape [1, 4] takes 4 elements, 8 came", data=ROW * 2),
    Wrong("negative size", "tensor 'x' has a negative size in shape [-1, 4]", shape=(-1, 4)),
    Wrong("same input twice", "input 'x' came twice", twice=True),
    Wrong("unknown output", "the model has no output 'z'; it has: y", outputs=("z",)),
)


def refusal(channel: grpc.Channel, message: Any, path: str = INFER) -> tuple[grpc.StatusCode, str]:
    """Return the code and message of a gRPC call."""
    body = message if isinstance(message, bytes) else message.SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(body, timeout=30)
    return caught.value.code(), caught.value.details()


def rest_refusal(mesh: running.Mesh, path: str, **asked: Any) -> tuple[int, str]:
    """Return the status and message of a REST call."""
    answer = mesh.http.post(path, **asked)
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()["error"]


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.why)
def test_both_protocols_say_the_same(
    mesh: running.Mesh, channel: grpc.Channel, wrong: Wrong
) -> None:
    code, reply = refusal(channel, wrong.message())
    status, told_too = rest_refusal(mesh, wrong.path(), json=wrong.body())
    assert (code, status) == wrong.kind
    assert wrong.words in reply
    assert told_too == reply


def raw(raws: Any, *tensors: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name="linear", inputs=tensors, raw_input_contents=raws)


X = TENSORS(name="x", datatype="FP32", shape=[1, 4])
RAW = np.array(ROW, np.float32).tobytes()
MIXED = TENSORS(
    name="x", datatype="FP32", shape=[1, 4], contents=pb.InferTensorContents(fp32_contents=ROW)
)
FIELD = TENSORS(
    name="x", datatype="FP32", shape=[1, 4], contents=pb.InferTensorContents(fp64_contents=ROW)
)
BROKEN = {
    "cut short": (
        raw([RAW[:-3]], X),
        "tensor 'x' of FP32 [1, 4] takes 16 bytes, 13 came: the message was cut short",
    ),
    "too long": (raw([RAW + b"\0"], X), "takes 16 bytes, 17 came"),
    "mixed": (
        raw([RAW], MIXED),
        "input 'x' has contents beside raw_input_contents: use one of the two for all",
    ),
    "raw without input": (raw([RAW, RAW], X), "1 inputs came with 2 raw_input_contents"),
    "wrong field": (
        raw([], FIELD),
        "input 'x' of FP32 belongs into fp32_contents, not fp64_contents",
    ),
    "half precision typed": (
        raw([], TENSORS(name="x", datatype="FP16", shape=[0])),
        "FP16 can only be sent in raw_input_contents",
    ),
    "no message": (b"\xff\xff\xff", "is not a ModelInferRequest"),
    "no model": (pb.ModelInferRequest(), "''"),
}


@pytest.mark.parametrize("why", BROKEN)
def test_broken_messages_are_explained(channel: grpc.Channel, why: str) -> None:
    message, words = BROKEN[why]
    code, reply = refusal(channel, message)
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert words in reply


def pair(data: Any, datatype: object = "INT64", **more: Any) -> dict[str, Any]:
    good = {"name": "b", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}
    return {
        "inputs": [{"name": "a", "datatype": datatype, "shape": [1, 2], "data": data, **more}, good]
    }


NOT_WHOLE = {
    "float": (pair([1.5, 2]), "input 'a' must hold whole numbers for INT64, not 1.5"),
    "text": (pair(["1", 2]), 'not "1"'),
    "null": (pair([None, 2]), "not null"),
    "boolean": (pair([True, 2]), "not true"),
    "too big": (pair([2**63, 0]), "out of the range of INT64"),
    "no shape": (pair([1, 2], shape="2"), "needs a shape"),
    "no datatype": (pair([1, 2], datatype=7), "datatype must be a string"),
    "no data": (
        {"inputs": [{"name": "a", "datatype": "INT64", "shape": [1, 2]}]},
        "neither data nor binary_data_size",
    ),
    "mixed": (pair([1, 2], parameters={"binary_data_size": 16}), "data beside binary_data_size"),
    "inputs": ({"inputs": {"a": 1}}, "inputs must be a list of objects"),
}


@pytest.mark.parametrize("why", NOT_WHOLE)
def test_json_that_does_not_fit_is_explained(mesh: running.Mesh, why: str) -> None:
    body, words = NOT_WHOLE[why]
    status, reply = rest_refusal(mesh, "/v2/models/pair/infer", json=body)
    assert status == 400
    assert words in reply


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "-NaN"])
def test_numbers_outside_of_json_are_refused(mesh: running.Mesh, value: str) -> None:
    body = (
        json.dumps(pair([1, 2]))
        .replace("[1, 2]", f"[{value}, 2]", 2)
        .replace(f'"shape": [{value}, 2]', '"shape": [1, 2]')
    )
    status, reply = rest_refusal(mesh, "/v2/models/pair/infer", content=body)
    assert status == 400
    assert "JSON" in reply or "whole numbers" in reply


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"\x00\xff", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"{}", 'must have either "instances"'),
        (b'{"instances": 3}', "must be a list"),
        (b'{"instances": [[1, 2], [1]]}', "different lengths"),
        (b'{"instances": [["a", 1, 1, 1]]}', "must hold numbers"),
        (b'{"instances": []}', "must have 2 dimensions"),
        (b'{"inputs": {"z": [1]}}', "the model has no input 'z'"),
    ],
)
def test_v1_has_the_reason(mesh: running.Mesh, body: Any, words: str) -> None:
    status, reply = rest_refusal(mesh, "/v1/models/doubled:predict", content=body)
    assert status == 400
    assert words in reply


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ("9999", "not a size within the body"),
        ("x", "not a size within the body"),
        ("1", "not JSON"),
    ],
)
def test_binary_bodies_must_have_the_lengths_they_state(
    mesh: running.Mesh, length: Any, words: str
) -> None:
    headers = {"inference-header-content-length": length}
    status, reply = rest_refusal(
        mesh, "/v2/models/linear/infer", content=b'{"inputs": []}', headers=headers
    )
    assert status == 400
    assert words in reply


def test_a_wrongly_compressed_body_is_refused(mesh: running.Mesh) -> None:
    for coding, words in (("gzip", "is not gzip"), ("br", "there are: gzip, deflate")):
        status, reply = rest_refusal(
            mesh, "/v2/models/linear/infer", content=b"{}", headers={"content-encoding": coding}
        )
        assert status == 400
        assert words in reply


def test_unknown_paths_are_404(mesh: running.Mesh) -> None:
    for path in (
        "/v3",
        "/v2/models/linear/nothing",
        "/v2/repository/nothing",
        "/mesh/v1/nothing",
    ):
        assert mesh.http.get(path).status_code == 404, path


def test_a_request_that_is_too_big_is_refused_with_the_limit(
    mesh: running.Mesh,
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    rows = np.zeros((conftest.REQUEST_BYTES_MAX // 16 + 1, 4), np.float32)
    words = (
        f"the request is larger than the limit of {conftest.REQUEST_BYTES_MAX} bytes "
        "(gateway.request_bytes_max)"
    )
    with pytest.raises(InferenceServerException) as caught:
        over_grpc.infer("linear", [asking.over_grpc("x", rows, "FP32")])
    assert (caught.value.status(), caught.value.message()) == (
        "StatusCode.RESOURCE_EXHAUSTED",
        words,
    )
    with pytest.raises(InferenceServerException) as caught:
        over_http.infer("linear", [asking.over_http("x", rows, "FP32")])
    assert (caught.value.status(), caught.value.message()) == ("413", words)
    assert rest_refusal(mesh, "/v1/models/linear:predict", json={"instances": rows.tolist()}) == (
        413,
        words,
    )


def test_errors_of_triton_clients_have_code_and_message(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    row = np.array([ROW], np.float64)
    with pytest.raises(
        InferenceServerException, match="input 'x' must be FP32, FP64 came"
    ) as caught:
        over_grpc.infer("linear", [asking.over_grpc("x", row, "FP64")])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(
        InferenceServerException, match="input 'x' must be FP32, FP64 came"
    ) as caught:
        over_http.infer("linear", [asking.over_http("x", row, "FP64")])
    assert caught.value.status() == "400"


def test_a_models_exception_has_its_message_alone(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    bad = np.array([-1], np.float32)
    with pytest.raises(InferenceServerException) as caught:
        over_grpc.infer("moody", [asking.over_grpc("x", bad, "FP32")])
    assert caught.value.status() == "StatusCode.INTERNAL"
    reply = caught.value.message()
    assert reply == f"model.py:8: ValueError: {behaviours.BLAME}"
    with pytest.raises(InferenceServerException) as caught:
        over_http.infer("moody", [asking.over_http("x", bad, "FP32")])
    assert (caught.value.status(), caught.value.message()) == ("500", reply)
    assert "Traceback" not in reply


def test_a_batch_with_one_bad_row_fails_only_its_own_request(channel: grpc.Channel) -> None:
    stub = rpc.GRPCInferenceServiceStub(channel)
    signs = [1, -1, 1, -1, 1]
    messages = [
        raw([np.array([sign], np.float32).tobytes()], TENSORS(name="x", datatype="FP32", shape=[1]))
        for sign in signs
    ]
    for message in messages:
        message.model_name = "moody"
    calls = [stub.ModelInfer.future(message) for message in messages]
    codes = [call.code() for call in calls]
    assert codes == [grpc.StatusCode.OK if sign > 0 else grpc.StatusCode.INTERNAL for sign in signs]


def test_deeply_nested_json_is_refused(mesh: running.Mesh) -> None:
    depth = 100_000
    status, _ = rest_refusal(
        mesh, "/v2/models/linear/infer", content=b'{"inputs":' + b"[" * depth + b"]" * depth + b"}"
    )
    assert status == 400


def test_an_output_that_is_not_text_needs_binary(mesh: running.Mesh) -> None:
    document = {
        "inputs": [_identity_input(name) for name in zoo.DATATYPES],
        "outputs": [{"name": "BYTES"}],
    }
    text = json.dumps(document).encode()
    body = (
        text
        + b"".join(bytes(2) if name in ("FP16", "BF16") else b"" for name in ("FP16", "BF16"))
        + b"\x01\0\0\0\xff"
    )
    headers = {"inference-header-content-length": str(len(text))}
    status, reply = rest_refusal(mesh, "/v2/models/identity/infer", content=body, headers=headers)
    assert (status, reply) == (
        400,
        "output 'BYTES' holds bytes that are not text: ask for binary data",
    )


def _identity_input(name: str) -> dict[str, Any]:
    entry = {"name": name, "datatype": name, "shape": [1]}
    sizes = {"FP16": 2, "BF16": 2, "BYTES": 5}
    if name in sizes:
        return {**entry, "parameters": {"binary_data_size": sizes[name]}}
    return {**entry, "data": [True] if name == "BOOL" else [1]}
