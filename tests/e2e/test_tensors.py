"""Every datatype through an echoing model: raw, typed, JSON and binary."""

from __future__ import annotations

from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests.e2e import asking, running, zoo

pytestmark = pytest.mark.edge

TYPES = {
    "BOOL": "?",
    "FP16": "f2",
    "FP32": "f4",
    "FP64": "f8",
    **{f"INT{8 * n}": f"i{n}" for n in (1, 2, 4, 8)},
}
TYPES |= {f"UINT{8 * n}": f"u{n}" for n in (1, 2, 4, 8)}
FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
WORDS = [zoo.WORDS.encode(), b"", bytes(range(256))]


def extremes(datatype: str) -> np.ndarray:
    """Return the least value, the greatest, and some between."""
    kind = np.dtype(TYPES[datatype])
    if kind.kind == "b":
        return np.array([True, False, True])
    limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)
    return np.array([limits.min, limits.max, 1], kind)


VALUES = {datatype: extremes(datatype) for datatype in TYPES}
VALUES["BYTES"] = np.array(WORDS, object)
VALUES["BF16"] = np.array([1.0, -2.5, 3e38], ml_dtypes.bfloat16)


def test_raw_tensors_are_returned_unchanged(
    over_grpc: tritonclient.grpc.InferenceServerClient,
) -> None:
    given = [asking.over_grpc(datatype, VALUES[datatype], datatype) for datatype in zoo.DATATYPES]
    answer = over_grpc.infer("identity", given)
    sent = {tensor_.name(): tensor_._get_content() for tensor_ in given}
    response = answer.get_response()
    assert {output.name: output.datatype for output in response.outputs} == {
        datatype: datatype for datatype in zoo.DATATYPES
    }
    assert (
        dict(
            zip(
                [output.name for output in response.outputs],
                response.raw_output_contents,
                strict=True,
            )
        )
        == sent
    )


@pytest.mark.parametrize("is_binary", [True, False])
def test_http_tensors_are_returned_unchanged(
    over_http: tritonclient.http.InferenceServerClient, is_binary: bool
) -> None:
    only_binary = {"FP16", "BF16", "BYTES"}
    given = [
        asking.over_http(
            datatype, VALUES[datatype], datatype, is_binary=is_binary or datatype in only_binary
        )
        for datatype in zoo.DATATYPES
    ]
    wanted = [
        tritonclient.http.InferRequestedOutput(
            datatype, binary_data=is_binary or datatype in only_binary
        )
        for datatype in zoo.DATATYPES
    ]
    answer = over_http.infer("identity", given, outputs=wanted)
    for datatype in TYPES:
        np.testing.assert_array_equal(answer.as_numpy(datatype), VALUES[datatype], strict=True)
    assert answer.as_numpy("BYTES").tolist() == WORDS
    assert answer.as_numpy("BF16").tobytes() == VALUES["BF16"].tobytes()


def test_texts_are_json_strings(mesh: running.Mesh) -> None:
    texts = ["", zoo.WORDS, "a\tb\u2028"]
    answers = (
        mesh.http.post("/v2/models/sleeper/infer", json={"inputs": [_seconds(), _name(texts[1])]})
        .raise_for_status()
        .json()
    )
    assert answers["outputs"] == [
        {"name": "name", "datatype": "BYTES", "shape": [1], "data": [zoo.WORDS]}
    ]


def _seconds() -> dict[str, Any]:
    return {"name": "seconds", "datatype": "FP64", "shape": [1], "data": [0]}


def _name(text: str) -> dict[str, Any]:
    return {"name": "name", "datatype": "BYTES", "shape": [1], "data": [text]}


def test_typed_contents_of_a_python_model_are_answered_raw(channel: grpc.Channel) -> None:
    a, b = [2**63 - 3, -(2**63) + 9], [1, 2]
    request = pb.ModelInferRequest(
        model_name="pair", inputs=[_typed("a", "INT64", [1, 2], a), _typed("b", "INT64", [1, 2], b)]
    )
    answer = rpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    raw = {
        output.name: np.frombuffer(content, np.int64).tolist()
        for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
    assert raw == {
        "sum": [2**63 - 2, -(2**63) + 11],
        "difference": [2**63 - 4, -(2**63) + 7],
    }


def _typed(name: str, datatype: str, shape: Any, values: Any) -> Any:
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    getattr(tensor.contents, FIELDS[datatype]).extend(values)
    return tensor


def test_typed_texts_of_a_python_model_are_answered_raw(channel: grpc.Channel) -> None:
    inputs = [_typed("seconds", "FP64", [1], [0]), _typed("name", "BYTES", [1], [b"\xff\x00"])]
    answer = rpc.GRPCInferenceServiceStub(channel).ModelInfer(
        pb.ModelInferRequest(model_name="sleeper", inputs=inputs)
    )
    assert list(answer.raw_output_contents) == [b"\x02\x00\x00\x00\xff\x00"]


def test_rows_keep_their_order(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    rows = np.random.default_rng(3).standard_normal((10_000, 4)).astype(np.float32)
    raw = over_grpc.infer("doubled", [asking.over_grpc("x", rows, "FP32")]).as_numpy("y")
    np.testing.assert_array_equal(raw, rows * 2)
    as_json = over_http.infer(
        "doubled", [asking.over_http("x", rows, "FP32", is_binary=False)]
    ).as_numpy("y")
    np.testing.assert_array_equal(as_json, rows * 2)
