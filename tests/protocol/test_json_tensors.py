from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.protocol import json_tensors, tensors
from tests.protocol import drawn


def loaded(parsed_array: Any) -> Any:
    return orjson.loads(json_tensors.dump(parsed_array, nan=b"null"))


@drawn.patient
@given(st.data(), st.sampled_from(drawn.DATATYPES))
def test_every_datatype_comes_back_nested(data: st.DataObject, datatype: str) -> None:
    array = data.draw(drawn.arrays(datatype, is_finite=True))
    if datatype == "BF16":
        array = np.where(np.isfinite(tensors.bfloat16_values(array)), array, 0).astype("u2")
    came = json_tensors.to_array(loaded(json_tensors.nested_values(array, datatype)), datatype, "x")
    assert drawn.is_same(came.reshape(array.shape), array)
    assert 0 in array.shape or came.shape == array.shape


@drawn.patient
@given(st.data(), st.sampled_from(drawn.TYPED))
def test_every_datatype_comes_back_flat(data: st.DataObject, datatype: str) -> None:
    array = data.draw(drawn.arrays(datatype, is_text=True, is_finite=True))
    came = json_tensors.to_array(
        loaded(json_tensors.flat_values(array, datatype, "x")), datatype, "x"
    )
    assert drawn.is_same(came.reshape(array.shape), array)


@drawn.often
@given(drawn.JSON, st.sampled_from(drawn.DATATYPES))
def test_any_json_is_an_array_of_the_datatype_or_an_invalid_request(
    values: dict[str, Any] | int | list[Any] | None, datatype: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if drawn.answers(json_tensors.to_array, values, datatype, "x"):
            assert json_tensors.to_array(values, datatype, "x").dtype == tensors.DTYPES[datatype]


@pytest.mark.parametrize(
    ("values", "datatype", "expected"),
    [
        ([1, None], "INT32", "input 'x' must hold whole numbers for INT32, not null"),
        ([1.0], "INT32", "input 'x' must hold whole numbers for INT32, not 1.0"),
        (["1"], "INT32", 'input \'x\' must hold whole numbers for INT32, not "1"'),
        ([1, True], "INT32", "input 'x' must hold whole numbers for INT32, not true"),
        ([1], "BOOL", "input 'x' must hold true or false for BOOL, not 1"),
        (["a"], "FP32", 'input \'x\' must hold numbers for FP32, not "a"'),
        ([True], "FP32", "input 'x' must hold numbers for FP32, not true"),
        ([1, "a"], "BYTES", "input 'x' must hold strings for BYTES, not 1"),
        (
            [{"b64": 1}],
            "BYTES",
            "input 'x' must hold strings for BYTES, or {\"b64\": \"<base64>\"}, not an object",
        ),
        (
            [{"b64": "?"}],
            "BYTES",
            (
                "input 'x': \"?\" is not base64 (A-Z a-z 0-9 and + / or - _, "
                "with or without = at its end)"
            ),
        ),
        ([float("inf"), 1e39], "FP32", "input 'x' has values out of the range of FP32"),
        ([10**400], "FP64", "input 'x' has values out of the range of FP64"),
        ([128], "INT8", "input 'x' has values out of the range of INT8, -128 to 127"),
        ([-1], "UINT64", f"input 'x' has values out of the range of UINT64, 0 to {2**64 - 1}"),
        ([1e39], "FP32", "input 'x' has values out of the range of FP32"),
        ([70000], "FP16", "input 'x' has values out of the range of FP16"),
        ([3.4e38], "BF16", "input 'x' has values out of the range of BF16"),
        ([[1, 2], [3]], "INT8", "input 'x' has rows of different lengths"),
        ([[1], 3], "INT8", "input 'x' has rows of different lengths"),
        ([1, [3]], "INT8", "input 'x' must hold whole numbers for INT8, not a list"),
        ("a" * 50, "INT8", f'input \'x\' must hold whole numbers for INT8, not "{"a" * 39}…'),
        ([1], "FP8", "datatype 'FP8' is unknown; there are: " + ", ".join(tensors.DTYPES)),
    ],
)  # fmt: skip
def test_an_error_shows_the_value_that_does_not_fit(
    values: list[Any] | str, datatype: str, expected: str
) -> None:
    assert drawn.refusal(json_tensors.to_array, values, datatype, "x") == expected


def test_large_whole_numbers_are_exact() -> None:
    assert json_tensors.to_array([1, 2**63, 2**64 - 1], "UINT64", "x").tolist() == [
        1,
        2**63,
        2**64 - 1,
    ]
    assert json_tensors.to_array([-(2**63), 2**63 - 1], "INT64", "x").tolist() == [
        -(2**63),
        2**63 - 1,
    ]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_numbers_that_are_not_finite_come_back_as_they_were(datatype: str) -> None:
    array = np.array([[np.nan, np.inf], [-np.inf, 0.1]], tensors.DTYPES[datatype])
    for values in (
        json_tensors.flat_values(array, datatype, "y"),
        json_tensors.nested_values(array, datatype),
        [list(row) for row in json_tensors.nested_values(array, datatype)],
    ):
        body = json_tensors.dump({"y": values})
        assert body.count(b"NaN") == 1
        assert body.count(b"Infinity") == 2
        came = json_tensors.parse_object(body)["y"]
        np.testing.assert_array_equal(
            json_tensors.to_flat_array(came, datatype, "x"), array.ravel()
        )
        assert np.array_equal(
            np.array(json.loads(body)["y"], array.dtype).ravel(), array.ravel(), equal_nan=True
        )


def test_null_is_not_a_number_and_written_for_it_where_clients_want_it() -> None:
    assert np.isnan(json_tensors.to_array([None], "FP32", "x")).all()
    values = json_tensors.flat_values(np.array([np.nan, -np.inf, 0.1], "f4"), "FP32", "y")
    assert json_tensors.dump(values, nan=b"null") == b"[null,-Infinity,0.1]"


def test_texts_that_look_like_words_stay_texts() -> None:
    document = {"x": ["NaN", "null", "-Infinity"], "y": np.array([np.inf])}
    body = json_tensors.dump(document)
    assert json_tensors.parse_object(body) == {"x": document["x"], "y": [np.inf]}


def test_whole_numbers_of_every_c_type_are_written() -> None:
    """ONNX Runtime's INT64 is `longlong`, which orjson takes in arrays alone."""
    array = np.array([1, 2], np.longlong)
    assert json_tensors.dump(list(json_tensors.nested_values(array, "INT64"))) == b"[1,2]"
    assert json_tensors.dump(json_tensors.nested_values(array.sum(), "INT64")) == b"3"


@pytest.mark.parametrize("values", [[1, 2, 3], [[1, 2, 3]], [[[1], [2]], [[3]]], [1, [2, [[3]]]]])
def test_values_may_be_nested_in_any_way(values: list[object]) -> None:
    assert json_tensors.to_flat_array(values, "INT8", "x").tolist() == [1, 2, 3]


def test_no_value_may_be_nested_too() -> None:
    assert json_tensors.to_flat_array([[], []], "INT8", "x").tolist() == []


@pytest.mark.parametrize(
    "text", ["-__-Pg==", "-__-Pg", "+//+Pg==", "+//+Pg", "+/_-Pg=", "+//+\nPg=="]
)
def test_base64_may_have_either_alphabet_and_no_padding(text: str) -> None:
    assert json_tensors.to_array([{"b64": text}], "BYTES", "x").tolist() == [b"\xfb\xff\xfe>"]


def test_fp32_is_written_with_its_own_digits() -> None:
    assert (
        json_tensors.dump(json_tensors.flat_values(np.array([0.1], "f4"), "FP32", "y")) == b"[0.1]"
    )


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3).T, np.arange(6.0, dtype=">f8").reshape(3, 2), np.array(1.5)],
)
def test_any_layout_and_byte_order_is_written(array: npt.NDArray[Any]) -> None:
    assert loaded(json_tensors.nested_values(array, "FP64")) == array.tolist()
    assert loaded(json_tensors.flat_values(array, "FP64", "y")) == array.ravel().tolist()


def test_bytes_that_are_no_text_need_binary_data_or_base64() -> None:
    array = np.array([b"\xff", b"a"], object)
    assert (
        drawn.refusal(json_tensors.flat_values, array, "BYTES", "y")
        == "output 'y' holds bytes that are not text: ask for binary data"
    )
    assert json_tensors.nested_values(array, "BYTES") == [{"b64": "/w=="}, "a"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[1]", "the body must be a JSON object, not a list"),
        (b"null", "the body must be a JSON object, not null"),
        (b'{"a": NaN,}', "the body is not JSON: "),
        (b'{"a": NaN, "b": 1e999}', "the body is not JSON: the number 1e999 is too large"),
        (b'{"a": NaN, "b": "\xff"}', "the body is not JSON: "),
        (b'{"a": NaN, "b": "\\ud800"}', "the body is not JSON: "),
        (b'{"a": NaN, "b": ' + b"[" * 100_000, "the body is not JSON: "),
        (b'{"a": NaN, "b": ' + b"1" * 5000 + b"}", "the body is not JSON: "),
        (b"NaN", "the body must be a JSON object, not NaN"),
        (b'{"a": "\xff"}', "the body is not JSON: "),
        (b'{"a": "\\ud800"}', "the body is not JSON: "),
        (b"[" * 100_000, "the body is not JSON: "),
        (b"", "the body is not JSON: "),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_a_body_that_is_no_object_is_refused(body: bytes, expected: str) -> None:
    assert drawn.refusal(json_tensors.parse_object, body).startswith(expected)


@pytest.mark.parametrize(
    "shape", [(), (1,), (60,), (3, 20), (20, 3), (1, 60), (2, 5, 6), (12, 5, 1)]
)
@pytest.mark.parametrize("kind", ["FP32", "INT64", "BYTES"])
def test_big_arrays_are_written_as_small_ones(
    shape: tuple[int, ...], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = math.prod(shape)
    array = np.arange(size).astype(tensors.DTYPES[kind]).reshape(shape)
    if kind == "BYTES":
        array = np.array([b"null", b"\xc3\xa9", b'"'] * 20, object)[:size].reshape(shape)
    if kind == "FP32" and size > 3:
        array.reshape(-1)[:3] = np.nan, np.inf, -np.inf

    def written() -> list[bytes]:
        flat = json_tensors.dump(json_tensors.flat_values(array, kind, "y"), nan=b"null")
        nested = json_tensors.dump(json_tensors.nested_values(array, kind))
        rows = json_tensors.join_rows(json_tensors.row_values(array, kind), 7) if shape else []
        return [flat, nested, json_tensors.dump(rows)]

    expected = written()
    for values in (2, 5, 7, 59):
        monkeypatch.setattr(json_tensors, "PIECE_VALUES", values)
        assert written() == expected


def test_big_lists_are_read_as_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    lists: list[tuple[list[Any], str]] = [
        ([1.5, None, 2] * 5, "FP32"),
        ([1, 2**63, 3] * 5, "UINT64"),
        (["a", {"b64": "YQ"}, ""] * 5, "BYTES"),
        ([1.5, 2, -3] * 5, "BF16"),
    ]
    expected = [json_tensors.to_array([values], kind, "x") for values, kind in lists]
    monkeypatch.setattr(json_tensors, "PIECE_VALUES", 4)
    for (values, kind), array in zip(lists, expected, strict=True):
        assert drawn.is_same(json_tensors.to_array([values], kind, "x"), array)
    with pytest.raises(errors.InvalidRequest, match="out of the range of UINT8"):
        json_tensors.to_array([1] * 14 + [256], "UINT8", "x")
