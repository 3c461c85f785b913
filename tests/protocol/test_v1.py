from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import inference, v1
from tests.protocol import drawn

ONE = drawn.one_input("FP32", (-1, 2))
TEXTS = drawn.one_input("BYTES", (-1,))
A_ROW = {"x": [1, 2], "name": ["a"]}
ANOTHER_ROW = {"x": [3, 4], "name": ["b"]}


def decode(document: dict[str, Any], signature: model.Signature = drawn.SIGNATURE) -> Any:
    predicted = v1.decode_predict(orjson.dumps(document), signature)
    inputs = predicted.call.inputs
    return {name: tensor.array.tolist() for name, tensor in inputs.items()}, predicted.is_by_rows


def test_rows_of_one_input_need_no_name() -> None:
    assert decode({"instances": [[1, 2], [3, 4]]}, ONE) == ({"x": [[1, 2], [3, 4]]}, True)
    assert decode({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, ONE) == (
        {"x": [[1, 2], [3, 4]]},
        True,
    )


def test_columns_come_by_name_or_alone() -> None:
    assert decode({"inputs": [[1, 2]]}, ONE) == ({"x": [[1, 2]]}, False)
    assert decode({"inputs": {"x": [[1, 2]], "name": [["a"]]}}) == (
        {"x": [[1, 2]], "name": [[b"a"]]},
        False,
    )


def test_rows_of_several_inputs_name_them() -> None:
    assert decode({"instances": [A_ROW, ANOTHER_ROW]}) == (
        {"x": [[1, 2], [3, 4]], "name": [[b"a"], [b"b"]]},
        True,
    )


def test_bytes_that_are_no_text_come_in_base64() -> None:
    assert decode({"instances": [{"b64": "/w=="}, {"b64": ""}]}, TEXTS) == (
        {"x": [b"\xff", b""]},
        True,
    )
    assert decode({"instances": [{"x": {"b64": "/w=="}}]}, TEXTS) == ({"x": [b"\xff"]}, True)


@pytest.mark.parametrize(
    ("datatype", "expected"), [("FP16", [0.5]), ("BF16", [0x3F00]), ("FP64", [0.5])]
)
def test_the_signature_gives_the_datatype(datatype: str, expected: list[float]) -> None:
    call = v1.decode_predict(b'{"instances": [0.5]}', drawn.one_input(datatype)).call
    assert call.inputs["x"].datatype == datatype
    assert call.inputs["x"].array.tolist() == expected
    assert inference.check_inputs(call, drawn.one_input(datatype))


EITHER = 'the body must have either "instances", a list of rows, or "inputs", columns by name'


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, EITHER),
        ({"instances": [1], "inputs": [1]}, EITHER),
        ({"instances": {"x": 1}}, '"instances" must be a list, one entry for each row'),
        ({"instances": [[1, 2]]}, "the model has several inputs: give each by name (x, name)"),
        ({"inputs": [[1, 2]]}, "the model has several inputs: give each by name (x, name)"),
        (
            {"instances": [A_ROW, {"x": [1, 2]}]},
            "instance 1 has the inputs ['x'], the model takes ['x', 'name']",
        ),
        ({"inputs": {"z": [1]}}, "the model has no input 'z'; it has: x, name"),
        ({"instances": [A_ROW, {**A_ROW, "x": [1]}]}, "input 'x' has rows of different lengths"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(document: dict[str, Any], expected: str) -> None:
    assert drawn.refusal(decode, document) == expected


def test_no_rows_are_an_empty_batch() -> None:
    call = v1.decode_predict(b'{"inputs": {"x": [], "name": []}}', drawn.SIGNATURE).call
    assert "input 'x' must have 2 dimensions" in drawn.refusal(
        inference.check_inputs, call, drawn.SIGNATURE
    )
    call = v1.decode_predict(b'{"instances": []}', TEXTS).call
    assert inference.check_inputs(call, TEXTS)["x"].shape == (0,)


def told(*, by_rows: bool, rows: int = 2, has_rows: bool = True, **outputs: Any) -> Any:
    specs = tuple(
        model.TensorSpec(name, datatype, (-1,)) for name, (datatype, _) in outputs.items()
    )
    arrays = {name: array for name, (_, array) in outputs.items()}
    signature = model.Signature((), specs, has_batch_dimension=has_rows)
    answer = inference.InferReply("m", "1", "", arrays, signature)
    predicted = v1.PredictCall(inference.InferCall("m"), is_by_rows=by_rows, rows=rows)
    return json.loads(v1.encode_predict(answer, predicted), parse_constant=str)


SCORES = ("FP32", np.array([[0.5, np.nan], [0.1, 2]], "f4"))
LABELS = ("BYTES", drawn.of_objects([b"a", b"\xff"], (2,)))
HALF = ("BF16", np.array([0x3F80, 0x3F00], "u2"))


def test_a_single_output_has_no_name() -> None:
    assert told(by_rows=True, y=SCORES) == {"predictions": [[0.5, "NaN"], [0.1, 2]]}
    assert told(by_rows=False, y=SCORES) == {"outputs": [[0.5, "NaN"], [0.1, 2]]}
    assert told(by_rows=True, y=("INT8", np.array(3, "i1"))) == {"predictions": 3}


def test_several_outputs_come_row_by_row() -> None:
    rows = [
        {"y": [0.5, "NaN"], "label": "a", "half": 1.0},
        {"y": [0.1, 2], "label": {"b64": "/w=="}, "half": 0.5},
    ]
    assert told(by_rows=True, y=SCORES, label=LABELS, half=HALF) == {"predictions": rows}


def test_several_outputs_come_by_name_for_columns_or_without_rows() -> None:
    assert told(by_rows=False, label=LABELS, half=HALF) == {
        "outputs": {"label": ["a", {"b64": "/w=="}], "half": [1.0, 0.5]}
    }
    one = ("INT8", np.array([1], "i1"))
    assert told(by_rows=True, a=one, half=HALF) == {"predictions": {"a": [1], "half": [1.0, 0.5]}}
    alone = ("INT8", np.array(1, "i1"))
    assert told(by_rows=True, a=alone, b=alone) == {"predictions": {"a": 1, "b": 1}}


@pytest.mark.parametrize(("rows", "has_rows"), [(3, True), (2, False)])
def test_sizes_that_coincide_are_no_rows(rows: Any, has_rows: Any) -> None:
    by_name = {"y": [[0.5, "NaN"], [0.1, 2]], "half": [1.0, 0.5]}
    assert told(by_rows=True, rows=rows, has_rows=has_rows, y=SCORES, half=HALF) == {
        "predictions": by_name
    }


def test_whole_numbers_of_any_type_come_row_by_row() -> None:
    labels = ("INT64", np.array([7, 8], np.longlong))
    assert told(by_rows=True, label=labels, half=HALF) == {
        "predictions": [{"label": 7, "half": 1.0}, {"label": 8, "half": 0.5}]
    }


def test_the_outputs_to_return_may_be_named() -> None:
    predicted = v1.decode_predict(b'{"instances": [[1, 2]], "outputs": ["y"]}', ONE)
    assert predicted.call.outputs == ("y",)
    assert "list of the names" in drawn.refusal(
        v1.decode_predict, b'{"instances": [[1, 2]], "outputs": "y"}', ONE
    )


@drawn.patient
@given(st.data(), st.sampled_from(drawn.DATATYPES))
def test_every_datatype_comes_back(data: st.DataObject, datatype: str) -> None:
    array = data.draw(drawn.arrays(datatype, is_finite=True))
    if datatype == "BF16":
        array &= 0x3FFF
    predicted = v1.PredictCall(inference.InferCall("m"), is_by_rows=False)
    body = v1.encode_predict(drawn.reply(datatype, array), predicted)
    asked = {"inputs": {"x": orjson.loads(body)["outputs"]}}
    call = v1.decode_predict(orjson.dumps(asked), drawn.one_input(datatype)).call
    assert drawn.is_same(call.inputs["x"].array.reshape(array.shape), array)


def infer(body: bytes, signature: model.Signature) -> None:
    call = v1.decode_predict(body, signature).call
    inference.check_inputs(call, signature)


TABLE = model.Signature(ONE.inputs, (), table=model.Table(("x", "name")))
FRAME = model.Signature(
    (model.TensorSpec("x", "FP64", (-1,)), model.TensorSpec("name", "BYTES", (-1,))),
    (),
    table=model.Table(("x", "name"), is_by_column=True),
)
SIGNATURES = st.sampled_from([drawn.SIGNATURE, ONE, TEXTS, model.Signature((), ()), TABLE, FRAME])


@drawn.often
@given(
    st.binary(max_size=100) | drawn.broken(orjson.dumps({"instances": [A_ROW, ANOTHER_ROW]})),
    SIGNATURES,
)
def test_any_bytes_are_answered(body: bytes, signature: model.Signature) -> None:
    drawn.answers(infer, body, signature)


COLUMNS = st.dictionaries(st.sampled_from(["x", "name", "b64"]), drawn.JSON, max_size=3)
ROWS = st.lists(COLUMNS | drawn.JSON, max_size=3)


@drawn.often
@given(
    st.fixed_dictionaries(
        {}, optional={"instances": ROWS | drawn.JSON, "inputs": COLUMNS | drawn.JSON}
    ),
    SIGNATURES,
)
def test_any_document_is_answered(document: dict[str, Any], signature: model.Signature) -> None:
    drawn.answers(infer, json.dumps(document).encode(), signature)


def test_all_rows_may_leave_out_an_optional_input() -> None:
    specs = (model.TensorSpec("x", "INT64", (-1,)), model.TensorSpec("mask", "INT64", (-1,)))
    signature = model.Signature(specs, (), optional=frozenset({"mask"}))

    def inputs_of(*rows: dict[str, int] | int) -> set[str]:
        body = json.dumps({"instances": rows}).encode()
        return set(v1.decode_predict(body, signature).call.inputs)

    assert inputs_of({"x": 1}, {"x": 2}) == inputs_of(1, 2) == {"x"}
    assert inputs_of({"x": 1, "mask": 0}) == {"x", "mask"}
    for rows in (({"x": 1}, {"x": 2, "mask": 0}), ({"mask": 1},), ({"x": 1, "z": 1},)):
        with pytest.raises(errors.InvalidRequest, match="may leave out"):
            inputs_of(*rows)
