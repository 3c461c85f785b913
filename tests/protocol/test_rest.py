from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient import http as tritonclient

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import inference, rest, tensors
from tests.protocol import drawn

X = {"name": "x", "datatype": "INT8", "shape": [2]}


def decode(document: dict[str, Any], binary: bytes = b"", headers: tuple[Any, ...] = ()) -> Any:
    text = orjson.dumps(document)
    length = [(rest.LENGTH, str(len(text)).encode())] if binary else []
    return rest.decode_infer(text + binary, [*length, *headers])


def there_and_back(
    datatype: str, array: npt.NDArray[Any], *, is_binary: bool
) -> tuple[dict[bytes, bytes], inference.WireTensor]:
    """The answer's tensors sent back as a request's: they have the same form."""
    headers, body = rest.encode_infer(
        drawn.reply(datatype, array), rest.RestCall(inference.InferCall("m"), is_binary)
    )
    sizes = [int(value) for name, value in headers if name == rest.LENGTH]
    text = body[: sizes[0]] if sizes else body
    asked = orjson.dumps({"inputs": orjson.loads(text)["outputs"]})
    length = [(rest.LENGTH, str(len(asked)).encode())] if sizes else []
    return dict(headers), rest.decode_infer(asked + body[len(text) :], length).call.inputs["x"]


@drawn.patient
@given(st.data(), st.sampled_from(drawn.DATATYPES))
def test_every_datatype_comes_back_in_binary(data: st.DataObject, datatype: str) -> None:
    array = data.draw(drawn.arrays(datatype))
    headers, came = there_and_back(datatype, array, is_binary=True)
    assert headers[b"content-type"] == b"application/octet-stream"
    assert came.datatype == datatype
    assert drawn.is_same(came.array, array)


@drawn.patient
@given(st.data(), st.sampled_from(drawn.TYPED))
def test_every_datatype_but_the_halves_comes_back_in_json(
    data: st.DataObject, datatype: str
) -> None:
    array = data.draw(drawn.arrays(datatype, is_text=True, is_finite=True))
    headers, came = there_and_back(datatype, array, is_binary=False)
    assert headers == {b"content-type": b"application/json"}
    assert drawn.is_same(came.array, array)


def test_a_call_has_what_the_document_says() -> None:
    asked = decode(drawn.valid_document())
    assert (asked.call.id, asked.call.outputs, asked.is_binary, asked.binary) == (
        "7",
        ("y",),
        False,
        {"y": False},
    )
    taken = inference.check_inputs(asked.call, drawn.SIGNATURE)
    np.testing.assert_array_equal(taken["x"], [[1, 2.5], [3, np.nan]])
    assert taken["name"].tolist() == [[b"a"], [b"\xff"]]


def test_binary_inputs_lie_behind_the_json_in_their_order() -> None:
    first = {**X, "parameters": {"binary_data_size": 2}}
    second = {"name": "y", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}
    between = {"name": "z", "datatype": "INT8", "shape": [1], "data": [7]}
    wire_tensor = decode({"inputs": [first, between, second]}, b"\1\2\1\0\0\0a").call.inputs
    assert [tensor.array.tolist() for tensor in wire_tensor.values()] == [[1, 2], [7], [b"a"]]


def answer(asked: rest.RestCall) -> tuple[dict[str, Any], bytes]:
    specs = (model.TensorSpec("a", "INT8", (-1,)), model.TensorSpec("b", "INT8", (-1,)))
    outputs = {"a": np.array([1, 2], "i1"), "b": np.array([3], "i1")}
    headers, body = rest.encode_infer(
        inference.InferReply("m", "3", "", outputs, model.Signature((), specs)), asked
    )
    size = int(dict(headers).get(rest.LENGTH, len(body)))
    return orjson.loads(body[:size]), body[size:]


@pytest.mark.parametrize(
    ("parameters", "a", "b", "binary"),
    [
        ({}, {}, {}, b""),
        ({"binary_data_output": True}, {}, {}, b"\1\2\3"),
        ({"binary_data_output": True}, {"binary_data": False}, {}, b"\3"),
        ({}, {}, {"binary_data": True}, b"\3"),
    ],
)
def test_every_output_has_the_requested_form(
    parameters: dict[str, bool], a: dict[str, bool], b: dict[str, bool], binary: bytes
) -> None:
    wanted = [{"name": "a", "parameters": a}, {"name": "b", "parameters": b}]
    document, behind = answer(decode({"parameters": parameters, "outputs": wanted}))
    assert behind == binary
    sizes = [
        output.get("parameters", {}).get("binary_data_size", 0) for output in document["outputs"]
    ]
    assert sum(sizes) == len(binary)
    assert [size > 0 for size in sizes] == ["data" not in output for output in document["outputs"]]


def test_an_answer_names_its_model_and_what_it_holds() -> None:
    document, _ = answer(rest.RestCall(inference.InferCall("m")))
    assert document == {
        "model_name": "m",
        "model_version": "3",
        "outputs": [
            {"name": "a", "datatype": "INT8", "shape": [2], "data": [1, 2]},
            {"name": "b", "datatype": "INT8", "shape": [1], "data": [3]},
        ],
    }


@pytest.mark.parametrize("is_binary", [True, False])
def test_tritons_client_is_understood_and_understands(is_binary: bool) -> None:
    asked = [
        tritonclient.InferInput("x", [2, 2], "FP32"),
        tritonclient.InferInput("name", [2, 1], "BYTES"),
    ]
    asked[0].set_data_from_numpy(np.ones((2, 2), "f4"), binary_data=is_binary)
    asked[1].set_data_from_numpy(np.array([["a"], ["ä"]], object), binary_data=is_binary)
    wanted = [tritonclient.InferRequestedOutput("y", binary_data=is_binary)]
    body, size = tritonclient.InferenceServerClient.generate_request_body(asked, outputs=wanted)
    heard = rest.decode_infer(bytes(body), [] if size is None else [(rest.LENGTH, b"%d" % size)])
    assert inference.check_inputs(heard.call, drawn.SIGNATURE)["name"].tolist() == [
        [b"a"],
        ["ä".encode()],
    ]
    y = np.array([[0.1, np.nan, 2]], "f4")
    headers, answer_json = rest.encode_infer(
        inference.InferReply("m", "1", "", {"y": y}, drawn.SIGNATURE), heard
    )
    length = [int(value) for name, value in headers if name == rest.LENGTH]
    understood = tritonclient.InferenceServerClient.parse_response_body(
        answer_json, header_length=length[0] if length else None
    )
    np.testing.assert_array_equal(understood.as_numpy("y"), y)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (X, "input 'x' has neither data nor binary_data_size"),
        (X | {"data": [1]}, "input 'x' of shape [2] takes 2 elements, 1 came"),
        (X | {"data": [[1, 2], 3]}, "input 'x' of shape [2] takes 2 elements, 3 came"),
        (X | {"data": [1, 2.5]}, "input 'x' must hold whole numbers for INT8, not 2.5"),
        (X | {"shape": [2.0], "data": [1, 2]}, "input 'x' needs a shape, a list of whole numbers"),
        (X | {"shape": [2**70], "data": [1]}, "input 'x' needs a shape, a list of whole numbers"),
        (
            X | {"shape": [2**62, 2**62], "data": [1]},
            f"tensor 'x' of shape [{2**62}, {2**62}] is too big",
        ),
        (X | {"datatype": 3}, "input 'x': datatype must be a string"),
        (X | {"name": None}, "input: name must be a string"),
        (X | {"parameters": 3}, "parameters must be an object"),
        (
            X | {"parameters": {"binary_data_size": 2}},
            "input 'x' claims binary_data_size 2, 0 bytes are left in the body",
        ),
        (
            X | {"parameters": {"binary_data_size": -1}},
            "input 'x' claims binary_data_size -1, 0 bytes are left in the body",
        ),
        (
            X | {"parameters": {"binary_data_size": True}},
            "input 'x' claims binary_data_size True, 0 bytes are left in the body",
        ),
        (
            X | {"data": [], "parameters": {"binary_data_size": 0}},
            "input 'x' has data beside binary_data_size: use one of the two",
        ),
        (
            X | {"parameters": {"shared_memory_region": "r"}},
            "input 'x': shared memory is not offered: send tensors in the message",
        ),
        (3, "inputs must be a list of objects"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_an_input_that_contradicts_itself_is_refused(
    entry: dict[str, Any] | int, expected: str
) -> None:
    body = json.dumps({"inputs": [entry]}).encode()
    assert drawn.refusal(rest.decode_infer, body, []) == expected


def test_names_come_once_and_nothing_is_left_over() -> None:
    whole = X | {"data": [1, 2]}
    assert drawn.refusal(decode, {"inputs": [whole, whole]}) == "input 'x' came twice"
    assert (
        drawn.refusal(decode, {"inputs": [whole]}, b"abc")
        == "the body has 3 bytes more than its inputs take"
    )


@pytest.mark.parametrize("data", [[1, 2], [[1, 2]], [[1], [2]], [[1], 2]])
@pytest.mark.parametrize("shape", [[2], [1, 2], [2, 1]])
def test_data_may_be_nested_in_any_way(data: list[object], shape: list[int]) -> None:
    entry = X | {"shape": shape, "data": data}
    array = decode({"inputs": [entry]}).call.inputs["x"].array
    assert array.tolist() == np.array([1, 2]).reshape(shape).tolist()


def test_null_is_given_for_whatever_is_optional() -> None:
    """MLServer's own client writes it."""
    entry = X | {"data": [1, 2], "parameters": None}
    rest_call = decode({"id": None, "parameters": None, "outputs": None, "inputs": [entry]})
    assert (rest_call.call.id, rest_call.call.outputs, rest_call.is_binary) == ("", (), False)
    outputs = [{"name": "y", "parameters": None}]
    assert decode({"inputs": [entry], "outputs": outputs}).binary == {}
    binary = X | {"data": None, "parameters": {"binary_data_size": 2}}
    assert decode({"inputs": [binary]}, b"\1\2").call.inputs["x"].array.tolist() == [1, 2]
    assert "neither" in drawn.refusal(decode, {"inputs": [X | {"data": None}]})


@pytest.mark.parametrize(
    ("datatype", "is_binary"),
    [("FP16", True), ("FP32", True), ("FP64", True), ("FP32", False), ("FP64", False)],
)
def test_tritons_client_sends_and_reads_numbers_that_are_not_finite(
    datatype: str, is_binary: bool
) -> None:
    array = np.array([np.nan, np.inf, -np.inf, 0.1], tensors.DTYPES[datatype])
    sent = tritonclient.InferInput("x", [4], datatype)
    sent.set_data_from_numpy(array, binary_data=is_binary)
    body, size = tritonclient.InferenceServerClient.generate_request_body([sent])
    headers = [] if size is None else [(rest.LENGTH, b"%d" % size)]
    rest_call = rest.decode_infer(bytes(body), headers)
    np.testing.assert_array_equal(rest_call.call.inputs["x"].array, array)
    rest_call.is_binary = is_binary
    answer_headers, text = rest.encode_infer(drawn.reply(datatype, array), rest_call)
    length = [int(value) for name, value in answer_headers if name == rest.LENGTH]
    result = tritonclient.InferenceServerClient.parse_response_body(
        text, header_length=length[0] if length else None
    )
    np.testing.assert_array_equal(result.as_numpy("x"), array)


def test_sequences_and_repeated_outputs_are_refused() -> None:
    for parameters in ({"sequence_id": "a"}, {"sequence_start": True}):
        assert "sequences are not offered" in drawn.refusal(decode, {"parameters": parameters})
    assert decode({"parameters": {"sequence_id": 0, "sequence_end": False}}).call.outputs == ()
    twice = {"outputs": [{"name": "y"}, {"name": "y"}]}
    assert drawn.refusal(decode, twice) == "output 'y' already exists in request"


def raw_binary(body: bytes, *inputs: model.TensorSpec, rows: bool = False) -> np.ndarray:
    signature = model.Signature(inputs, (), has_batch_dimension=rows)
    rest_call = rest.decode_raw_binary(body, signature)
    assert rest_call.is_binary
    (wire,) = rest_call.call.inputs.values()
    return wire.array


def test_a_raw_binary_request_is_the_only_inputs_bytes() -> None:
    six = np.arange(6, dtype=np.float32)
    for shape, rows, came in (
        ((2, 3), False, (2, 3)),
        ((-1, 3), False, (2, 3)),
        ((-1, 2, -1), True, (1, 2, 3)),
        ((-1, 6), True, (1, 6)),
    ):
        array = raw_binary(six.tobytes(), model.TensorSpec("x", "FP32", shape), rows=rows)
        np.testing.assert_array_equal(array, six.reshape(came))
    text = raw_binary(b"427", model.TensorSpec("x", "BYTES", (-1, 1)), rows=True)
    assert text.tolist() == [[b"427"]]
    assert raw_binary(b"", model.TensorSpec("x", "FP32", (-1,))).shape == (0,)


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([], "got 0 inputs"),
        ([("a", (1,)), ("b", (1,))], "got 2 inputs"),
        ([("a", (-1, -1))], "more than one variable-sized dimension"),
        ([("a", (2,))], "8"),
        ([("a", (-1, 5))], "5"),
    ],
)
def test_a_raw_binary_request_that_fits_no_input_is_refused(
    specs: list[tuple[str, tuple[int, ...]]], words: str
) -> None:
    inputs = [model.TensorSpec(name, "FP32", shape) for name, shape in specs]
    with pytest.raises(errors.InvalidRequest, match=words):
        raw_binary(bytes(12), *inputs)
    with pytest.raises(errors.InvalidRequest, match="shape \\[1\\]"):
        raw_binary(bytes(12), model.TensorSpec("x", "BYTES", (2,)))
    with pytest.raises(errors.InvalidRequest, match=r"must have input shape \[1\], not \[-1\]"):
        raw_binary(b"\x02\0\0\0ab", model.TensorSpec("x", "BYTES", (-1,)))


@pytest.mark.parametrize(
    ("value", "is_raw"), [(b"0", True), (b"00", True), (b"", False), (b"10", False), (b"x", False)]
)
def test_a_header_of_length_0_marks_a_raw_binary_request(value: bytes, *, is_raw: bool) -> None:
    assert rest.is_raw_binary(((rest.LENGTH, value),)) is is_raw
    assert not rest.is_raw_binary(())


@pytest.mark.parametrize("header", [b"99", b"-1", b"x", b"", b"9" * 5000, b"\xff"])
def test_a_json_length_that_is_none_is_refused(header: bytes) -> None:
    assert "is not a size within the body of 2 bytes" in drawn.refusal(
        rest.decode_infer, b"{}", [(rest.LENGTH, header)]
    )


def infer(body: bytes, headers: list[tuple[bytes, bytes]] | tuple[Any, ...] = ()) -> None:
    inference.check_inputs(rest.decode_infer(body, headers).call, drawn.SIGNATURE)


@drawn.often
@given(
    st.binary(max_size=100),
    st.none() | st.binary(max_size=4) | st.integers(0, 100).map(lambda size: b"%d" % size),
)
def test_any_bytes_are_answered(body: bytes, length: bytes | None) -> None:
    drawn.answers(infer, body, [] if length is None else [(rest.LENGTH, length)])


@drawn.often
@given(drawn.broken(orjson.dumps(drawn.valid_document())))
def test_any_broken_document_is_answered(body: bytes) -> None:
    drawn.answers(infer, body)


ENTRIES = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "name"]) | drawn.JSON},
    optional={
        "datatype": drawn.WORDS | drawn.JSON,
        "shape": st.lists(drawn.SIZES, max_size=3) | drawn.JSON,
        "data": st.lists(drawn.JSON, max_size=4) | drawn.JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 9) | drawn.JSON})
        | drawn.JSON,
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"inputs": st.lists(ENTRIES, max_size=3) | drawn.JSON},
    optional={
        "id": drawn.JSON,
        "outputs": st.lists(ENTRIES, max_size=2) | drawn.JSON,
        "parameters": drawn.JSON,
    },
)


@drawn.often
@given(DOCUMENTS, st.binary(max_size=12))
def test_any_document_is_answered(document: dict[str, Any], binary: bytes) -> None:
    text = json.dumps(document).encode()
    drawn.answers(infer, text + binary, [(rest.LENGTH, str(len(text)).encode())])


def test_texts_that_do_not_fill_their_shape_are_for_an_open_signature_alone() -> None:
    came = decode({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [3], "data": ["abc"]}]})
    spec = model.TensorSpec("x", "BYTES", (-1,))
    opened = inference.check_inputs(came.call, model.Signature((), (), is_open=True))
    assert opened["x"].tolist() == [b"abc"]
    tables = (model.Table(), model.Table(("x",), is_by_column=True))
    for signature in (model.Signature((spec,), (), table=table) for table in (None, *tables)):
        with pytest.raises(errors.InvalidRequest, match=r"'x' of shape \[3\] takes 3 .* 1 came"):
            inference.check_inputs(came.call, signature)


def test_null_is_a_gap_in_a_text_column_of_a_frame_alone() -> None:
    sent = {"name": "city", "datatype": "BYTES", "shape": [3], "data": ["a", None, ""]}
    came = decode({"inputs": [sent]})
    spec = model.TensorSpec("city", "BYTES", (-1,))
    frame = model.Signature((spec,), (), table=model.Table(("city",), is_by_column=True))
    assert inference.check_inputs(came.call, frame)["city"].tolist() == [b"a", None, b""]
    for signature in (
        model.Signature((spec,), ()),
        model.Signature((spec,), (), table=model.Table()),
    ):
        with pytest.raises(errors.InvalidRequest, match="'city' has null"):
            inference.check_inputs(came.call, signature)
    opened = inference.check_inputs(came.call, model.Signature((), (), is_open=True))
    assert opened["city"].tolist() == [b"a", None, b""]
