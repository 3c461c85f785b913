from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from meshserve.runtimes import mlserver_codecs, mlserver_requests, mlserver_types


def request_of(*inputs: dict[str, Any], content_type: str | None = None) -> Any:
    said = {"parameters": {"content_type": content_type}} if content_type else {}
    return mlserver_types.PayloadRequest.model_validate({"inputs": list(inputs), **said})


def tensor(name: str, datatype: str, data: list[Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data), 1], "data": data, **fields}


# What `mlserver.codecs` 1.7.1 gives for the same frames, where it knows their types.
@pytest.mark.parametrize(
    ("column", "datatype", "data", "content_type"),
    [
        ([1, 2], "INT64", [1, 2], None),
        ([1.5, None], "FP64", [1.5, None], None),
        ([True, False], "BOOL", [True, False], None),
        (["x", "y"], "BYTES", ["x", "y"], "str"),
        ([[1], {"a": 2}], "BYTES", ["[1]", '{"a":2}'], "pd_json"),
        (["x", None], "BYTES", ['"x"', "null"], "pd_json"),
        (pd.Categorical(["a", "b"]), "BYTES", ["a", "b"], "str"),
    ],
)
def test_a_column_of_a_frame(
    column: Any, datatype: str, data: list[Any], content_type: str | None
) -> None:
    frame = pd.DataFrame({"c": column})
    codec = mlserver_requests.PandasCodec
    assert codec.can_encode(frame)
    request = codec.encode_request(frame, use_bytes=False)
    (sent,) = request.inputs
    assert (sent.datatype, sent.shape, sent.data.root) == (datatype, [2, 1], data)
    assert (sent.parameters and sent.parameters.content_type) == content_type
    back = codec.decode_request(request)["c"].tolist()
    assert [None if item != item else item for item in back] == [  # noqa: PLR0124 NaN
        None if item != item else item  # noqa: PLR0124
        for item in list(column)
    ]
    answer = codec.encode_response("m", frame, "1")
    assert codec.decode_response(answer).shape == (2, 1)


def test_a_request_is_decoded_by_its_content_types() -> None:
    request = request_of(
        tensor("n", "FP32", [1, None], parameters={"content_type": "np"}),
        tensor("w", "BYTES", [b"a", b"b"], parameters={"content_type": "str"}),
        content_type="pd",
    )
    frame = mlserver_requests.decode_inference_request(request)
    assert frame["w"].tolist() == ["a", "b"]
    assert frame["n"].dtype == np.float32
    assert mlserver_requests.get_decoded_or_raw(request) is frame
    plain = request_of(tensor("n", "FP32", [1]))
    assert mlserver_requests.decode_inference_request(plain) is plain
    assert not mlserver_requests.has_decoded(plain)


def test_one_tensor_is_the_whole_request() -> None:
    codec = mlserver_requests.NumpyRequestCodec
    array = np.array([[1.0, 2.0]])
    request = codec.encode_request(array)
    assert request.inputs[0].name == "input-1"
    np.testing.assert_array_equal(codec.decode_request(request), array)
    answer = codec.encode_response("m", array)
    assert (answer.outputs[0].name, answer.parameters.content_type) == ("output-1", "np")
    np.testing.assert_array_equal(codec.decode_response(answer), array)
    two = request_of(tensor("a", "FP32", [1]), tensor("b", "FP32", [1]))
    with pytest.raises(
        mlserver_codecs.CodecError, match=r"single input tensor \(2 were received\)"
    ):
        codec.decode_request(two)


class Model:
    """What `decode_args` needs of a model."""

    name, version = "m", "1"

    @mlserver_requests.decode_args
    async def both(self, x: np.ndarray, words: list[str] | None) -> tuple[np.ndarray, list[str]]:
        return x * 2, words or []

    @mlserver_requests.decode_args
    def whole(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame * 2

    @mlserver_requests.decode_args
    async def wrong(self, x: np.ndarray) -> np.ndarray:  # noqa: ARG002
        return ["no array"]  # type: ignore[return-value]


async def test_arguments_are_found_by_their_names_and_types() -> None:
    x, words = tensor("x", "FP32", [1, 2]), tensor("words", "BYTES", ["a"])
    answer = await Model().both(request_of(x, words))
    assert [output.name for output in answer.outputs] == ["output-0", "output-1"]
    assert answer.outputs[0].data.root == [2, 4]
    assert answer.outputs[1].data.root == [b"a"]
    frame = await Model().whole(request_of(tensor("a", "INT64", [1]), tensor("b", "INT64", [2])))
    assert {output.name: output.data.root for output in frame.outputs} == {"a": [2], "b": [4]}
    with pytest.raises(mlserver_types.MLServerError, match="Input 'z' was not found"):
        await Model().both(request_of(x, words, tensor("z", "FP32", [1])))
    with pytest.raises(mlserver_types.MLServerError, match="Unexpected output value"):
        await Model().wrong(request_of(x))


def test_an_argument_without_a_codec_is_refused_where_it_is_written() -> None:
    async def predict(self: Any, x: complex) -> np.ndarray:
        raise NotImplementedError

    with pytest.raises(mlserver_codecs.CodecNotFound, match="with name 'x'"):
        mlserver_requests.decode_args(predict)


def test_values_are_encoded_by_content_type_or_type() -> None:
    said = mlserver_types.RequestOutput.model_validate(
        {"name": "y", "parameters": {"content_type": "base64"}}
    )
    assert mlserver_requests.encode_response_output([b"a"], said).data.root == [b"YQ=="]
    plain = mlserver_types.RequestOutput(name="y")
    assert mlserver_requests.encode_response_output(["a"], plain).data.root == [b"a"]
    assert mlserver_requests.encode_response_output(3, plain) is None
    settings = mlserver_types.ModelSettings(name="m")
    answer = mlserver_requests.encode_inference_response(np.array([1]), settings)
    assert answer.model_name == "m"
    assert mlserver_requests.encode_inference_response(3, settings) is None
