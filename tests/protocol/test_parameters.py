from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from meshserve import errors
from meshserve.protocol import inference, parameters, rest, tensors
from meshserve.protocol.pb import inference_pb2 as pb

HEADERS = ((b"X-Tenant", b"acme"), (b"x-tenant", b"two"), (b"user-agent", b"curl/8"))
SECRETS = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "Ocp-Apim-Subscription-Key",
    "x-goog-iap-jwt-assertion",
    "x-amz-security-token",
    "x-auth-request-email",
    "x-forwarded-client-cert",
    "x-mesh-client",
    "x-envoy-attempt-count",
    "my-secret",
)


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_and_the_mesh_s_own_headers_are_left_out(name: str) -> None:
    headers = ((name.encode(), b"s3cret"), *HEADERS)
    assert parameters.harmless_headers(headers) == {"x-tenant": "acme, two", "user-agent": "curl/8"}


@pytest.mark.parametrize("value", [True, False, 0, -3, 1 << 63, 2.5, "text", ""])
def test_a_value_comes_back_from_its_message(value: Any) -> None:
    back = parameters.value_of(parameters.as_message(value))
    assert (back, type(back)) == (value, type(value))


@pytest.mark.parametrize("value", [{"a": [1]}, [1, 2], 1 << 70])
def test_what_no_field_holds_is_json(value: Any) -> None:
    assert json.loads(parameters.as_message(value).string_param) == json.loads(json.dumps(value))


def test_what_json_can_t_hold_is_text() -> None:
    values = {"score": math.nan, "bounds": [-math.inf, 1.5], "at": Path("a/NaN")}
    sent = orjson.loads(orjson.dumps({"parameters": parameters.as_json(values)}))
    assert sent["parameters"] == {"score": "NaN", "bounds": ["-Infinity", 1.5], "at": "a/NaN"}


def test_a_parameter_without_a_value_is_none() -> None:
    assert parameters.value_of(pb.InferParameter()) is None


def test_grpc_and_json_say_the_same() -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="INT32", shape=[1])
    tensor.parameters["content_type"].string_param = "np"
    tensor.contents.int_contents.append(3)
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name="y")
    wanted.parameters["content_type"].string_param = "str"
    message = pb.ModelInferRequest(id="7", inputs=[tensor], outputs=[wanted])
    message.parameters["threshold"].double_param = 0.5
    call = inference.decode_infer(message.SerializeToString())
    by_grpc = parameters.details_of(call.source, HEADERS)
    document = {
        "id": "7",
        "parameters": {"threshold": 0.5},
        "inputs": [
            {
                "name": "x",
                "datatype": "INT32",
                "shape": [1],
                "data": [3],
                "parameters": {"content_type": "np"},
            }
        ],
        "outputs": [{"name": "y", "parameters": {"content_type": "str"}}],
    }
    rest_call = rest.decode_infer(json.dumps(document).encode(), ())
    by_json = parameters.details_of(rest_call.call.source, HEADERS)
    assert by_json.is_json
    assert not by_grpc.is_json
    by_json.is_json = False
    assert by_grpc == by_json
    assert by_grpc.parameters == {"threshold": 0.5}
    assert by_grpc.input_parameters == {"x": {"content_type": "np"}}
    assert by_grpc.headers["x-tenant"] == "acme, two"


@pytest.mark.parametrize(
    ("data", "shape", "nesting"),
    [
        ([1, 2], [2], {}),
        ([[1], [2]], [2, 1], {"x": (2, 1)}),
        ([[1, 2]], [2], {"x": (1, 2)}),
        (5, [1], {"x": ()}),
        ([], [0], {}),
        ([[], []], [2, 0], {"x": (2, 0)}),
    ],
)
def test_the_nesting_of_json_is_kept(data: Any, shape: list[int], nesting: Any) -> None:
    entry = {"name": "x", "datatype": "INT64", "shape": shape, "data": data}
    rest_call = rest.decode_infer(json.dumps({"inputs": [entry]}).encode(), ())
    details = parameters.details_of(rest_call.call.source, ())
    assert details.nesting == nesting


def test_a_call_without_a_source_says_nothing() -> None:
    details = parameters.details_of(None, ())
    assert (details.id, details.parameters, details.headers) == ("", {}, {})


@pytest.mark.parametrize("value", [True, -1, "2", 1.5])
def test_a_number_of_classes_is_whole(value: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="number of classes"):
        parameters.class_count(value, "y")


def test_sequences_and_shared_memory_are_refused() -> None:
    parameters.refuse_sequence({"sequence_id": 0, "sequence_start": False})
    with pytest.raises(errors.InvalidRequest, match="sequence_id"):
        parameters.refuse_sequence({"sequence_id": 4})
    with pytest.raises(errors.InvalidRequest, match="shared memory"):
        parameters.refuse_tensor({"shared_memory_region": "r"}, "input 'x'")


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_missing_texts_cross_raw_contents(shape: tuple[int, ...]) -> None:
    texts = np.array([b"a", None, b"", None], object).reshape(shape)
    message = pb.ModelInferRequest()
    sent = message.inputs.add(name="x", datatype="BYTES", shape=shape)
    message.raw_input_contents.append(tensors.to_raw(parameters.mark_nulls(texts, sent)))
    tensor = inference.call_from_message(message).inputs["x"]
    assert tensor.array.tolist() == texts.tolist()
    assert tensor.datatype == tensors.GAPS


@pytest.mark.parametrize("places", ["", "-1", "4", "0,x", "1.5"])
def test_places_of_missing_texts_are_checked(places: str) -> None:
    message = pb.ModelInferRequest()
    sent = message.inputs.add(name="x", datatype="BYTES", shape=[2])
    sent.parameters[parameters.NULLS].string_param = places
    message.raw_input_contents.append(tensors.to_raw(np.array([b"a", b"b"], object)))
    with pytest.raises(errors.InvalidRequest, match="must be places in the tensor"):
        inference.call_from_message(message)
