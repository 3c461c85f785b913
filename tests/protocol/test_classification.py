from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import classification, inference, rest
from meshserve.protocol.pb import inference_pb2 as pb

LABELS = (("p", ("cat", "", "dog")),)


def reply(array: np.ndarray, datatype: str = "FP32", **fields: Any) -> inference.InferReply:
    shape = (-1,) * array.ndim
    outputs = (model.TensorSpec("p", datatype, shape), model.TensorSpec("q", "FP32", (-1,)))
    arrays = {"p": array, "q": np.ones(1, np.float32)}
    return inference.InferReply("m", "1", "", arrays, model.Signature((), outputs, **fields))


def test_the_best_classes_of_each_row_come_first_with_their_labels() -> None:
    rows = np.array([[0.1, 0.7, 0.2, 0.7], [5, -1, 2, 3]], np.float32)
    answer = classification.apply(reply(rows, has_batch_dimension=True, labels=LABELS), {"p": 3})
    assert answer.outputs["p"].tolist() == [
        [b"0.700000:1", b"0.700000:3", b"0.200000:2:dog"],
        [b"5.000000:0:cat", b"3.000000:3", b"2.000000:2:dog"],
    ]
    assert answer.signature.outputs[0] == model.TensorSpec("p", "BYTES", (2, 3))
    assert answer.outputs["q"] is not None
    assert answer.signature.outputs[1].datatype == "FP32"


def test_without_a_batch_dimension_all_values_are_of_one_row() -> None:
    answer = classification.apply(reply(np.array([[3, 9], [-4, 1]], np.int32), "INT32"), {"p": 9})
    assert answer.outputs["p"].tolist() == [b"9:1", b"3:0", b"1:3", b"-4:2"]


def test_whole_numbers_are_ordered_exactly_and_nan_comes_last() -> None:
    big = np.array([2**63, 2**64 - 1, 0], np.uint64)
    assert classification.best_classes(big[None], 2, ()).tolist() == [
        [b"18446744073709551615:1", b"9223372036854775808:0"]
    ]
    low = np.array([[-128, 127]], np.int8)
    assert classification.best_classes(low, 1, ()).tolist() == [[b"127:1"]]
    values = np.array([[np.nan, -2.0, np.inf]])
    assert classification.best_classes(values, 3, ()).tolist() == [
        [b"inf:2", b"-2.000000:1", b"nan:0"]
    ]


@pytest.mark.parametrize(
    ("array", "datatype"),
    [
        (np.array([b"a"], object), "BYTES"),
        (np.array([True]), "BOOL"),
        (np.array([1], np.float16), "FP16"),
        (np.array([1], np.uint16), "BF16"),
    ],
)
def test_values_without_an_order_are_refused(array: np.ndarray, datatype: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=f"{datatype}: classification"):
        classification.apply(reply(array, datatype), {"p": 1})


def test_an_empty_batch_has_no_classes() -> None:
    empty = reply(np.empty((0, 3), np.float32), has_batch_dimension=True)
    assert classification.apply(empty, {"p": 2}).outputs["p"].shape[0] == 0


def grpc_call(**parameters: Any) -> inference.InferCall:
    message = pb.ModelInferRequest(model_name="m")
    output = message.outputs.add(name="p")
    for name, value in parameters.items():
        output.parameters[name].MergeFrom(value)
    return inference.call_from_message(message)


def rest_call(parameter: str) -> inference.InferCall:
    body = b'{"inputs": [], "outputs": [{"name": "p", "parameters": {"classification": %s}}]}'
    return rest.decode_infer(body % parameter.encode(), ()).call


def test_the_parameter_is_read_from_both_protocols() -> None:
    assert grpc_call(classification=pb.InferParameter(int64_param=2)).classes == {"p": 2}
    assert grpc_call(classification=pb.InferParameter(int64_param=0)).classes is None
    assert rest_call("2").classes == {"p": 2}
    assert rest_call("0").classes is None


@pytest.mark.parametrize("value", ["-1", "true", '"2"', "1.5", "null"])
def test_another_value_than_a_number_of_classes_is_refused(value: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="number of classes"):
        rest_call(value)
