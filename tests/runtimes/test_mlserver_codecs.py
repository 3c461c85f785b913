from __future__ import annotations

import datetime as dt
from typing import Any, List  # noqa: UP035 models write so

import numpy as np
import pytest

from meshserve.runtimes import mlserver_codecs, mlserver_types


def tensor(datatype: str, shape: list[int], data: Any) -> Any:
    document = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    return mlserver_types.RequestInput.model_validate(document)


# What `mlserver.codecs` 1.7.1 gives for the same arrays.
@pytest.mark.parametrize(
    ("array", "datatype", "shape", "data"),
    [
        (np.array([1, 2]), "INT64", [2, 1], [1, 2]),
        (np.array([[1.5, np.nan]]), "FP64", [1, 2], [1.5, None]),
        (np.array([[True]]), "BOOL", [1, 1], [True]),
        (np.zeros((2, 0)), "FP64", [2, 0], []),
        (np.array(3.0), "FP64", [1], [3.0]),
        (np.array([1], np.uint8), "UINT8", [1, 1], [1]),
        (np.array([1], np.float16), "FP16", [1, 1], [1.0]),
        (np.array(["a", "bc"]), "BYTES", [2, 1], [b"a", b"bc"]),
        (np.zeros((1, 2, 1), np.int16), "INT16", [1, 2, 1], [0, 0]),
    ],
)
def test_arrays(array: np.ndarray, datatype: str, shape: list[int], data: list[Any]) -> None:
    assert mlserver_codecs.NumpyCodec.can_encode(array)
    output = mlserver_codecs.NumpyCodec.encode_output("y", array)
    assert output.model_dump() == {
        "name": "y",
        "datatype": datatype,
        "shape": shape,
        "data": data,
        "parameters": {"content_type": "np"},
    }
    if array.dtype.kind != "U":
        back = mlserver_codecs.NumpyCodec.decode_input(
            mlserver_codecs.NumpyCodec.encode_input("y", array)
        )
        np.testing.assert_array_equal(back, array.reshape(shape), strict=True)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (tensor("FP32", [2], [1, None]), np.array([1, np.nan], np.float32)),
        (tensor("FP64", [2, 2], [[1, 2], [3, 4]]), np.array([[1.0, 2], [3, 4]])),
        (tensor("BYTES", [2], ["a", "bc"]), np.array(["a", "bc"])),
        (tensor("BYTES", [2, 1], [b"ab"]), np.array([[b"a"], [b"b"]])),
    ],
)
def test_arrays_as_clients_send_them(sent: Any, expected: np.ndarray) -> None:
    decoded = mlserver_codecs.NumpyCodec.decode_input(sent)
    np.testing.assert_array_equal(decoded, expected, strict=True)


DATE = dt.datetime(2020, 1, 2)  # noqa: DTZ001 as MLServer's clients write it


@pytest.mark.parametrize(
    ("name", "values", "packed"),
    [
        ("StringCodec", ["a", "é"], ["a", "é"]),
        ("Base64Codec", [b"a", b"\xff"], ["YQ==", "/w=="]),
        ("DatetimeCodec", [DATE], ["2020-01-02T00:00:00"]),
    ],
)
def test_texts(name: str, values: list[Any], packed: list[str]) -> None:
    codec = getattr(mlserver_codecs, name)
    assert codec.can_encode(values)
    assert not codec.can_encode([1])
    output = codec.encode_output("y", values, use_bytes=False)
    assert (output.shape, output.datatype, output.data.root) == ([len(values), 1], "BYTES", packed)
    assert codec.encode_output("y", values).data.root == [text.encode() for text in packed]
    assert codec.decode_output(output) == values
    assert codec.decode_input(codec.encode_input("y", values)) == values


def test_a_single_value_is_a_list_of_one() -> None:
    assert mlserver_codecs.StringCodec.decode_input(tensor("BYTES", [1], "abc")) == ["abc"]
    assert mlserver_codecs.Base64Codec.decode_input(tensor("BYTES", [1], "no b64!")) == [b"no b64!"]


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (np.ndarray, "NumpyCodec"),
        (list[str], "StringCodec"),
        (List[str], "StringCodec"),  # noqa: UP006 models write so
        (List[bytes], "Base64Codec"),  # noqa: UP006
        (int, None),
    ],
)
def test_codecs_are_found_by_type_hints(hint: Any, name: str | None) -> None:
    codec = mlserver_codecs.find_by_hint(hint)
    assert getattr(codec, "__name__", None) == name


def test_codecs_are_found_by_content_types_and_values() -> None:
    assert mlserver_codecs.find_input_codec("str") is mlserver_codecs.StringCodec
    assert mlserver_codecs.find_input_codec("none") is None
    assert mlserver_codecs.find_input_codec(payload=["a"]) is mlserver_codecs.StringCodec
    assert mlserver_codecs.find_request_codec("none") is None
