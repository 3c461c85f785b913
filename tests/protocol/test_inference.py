from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.protocol import inference, tensors
from meshserve.protocol.pb import inference_pb2 as pb
from tests.protocol import drawn

X = np.arange(4, dtype="f4").reshape(2, 2)
NAMES = drawn.of_objects([b"a", b"b"], (2, 1))


def call(
    x: npt.NDArray[Any] = X,
    name: npt.NDArray[Any] = NAMES,
    *,
    x_as: str = "FP32",
    outputs: tuple[str, ...] = (),
) -> inference.InferCall:
    given_inputs = {"x": inference.WireTensor(x_as, x), "name": inference.WireTensor("BYTES", name)}
    return inference.InferCall("m", inputs=given_inputs, outputs=outputs)


def as_request(message: pb.ModelInferResponse) -> bytes:
    """The answer's tensors sent back as a request's: their fields have the same numbers."""
    sent = [
        pb.ModelInferRequest.InferInputTensor.FromString(output.SerializeToString())
        for output in message.outputs
    ]
    return pb.ModelInferRequest(
        inputs=sent, raw_input_contents=message.raw_output_contents
    ).SerializeToString()


def there_and_back(
    datatype: str, array: npt.NDArray[Any], *, is_raw: bool
) -> tuple[pb.ModelInferResponse, inference.InferCall]:
    message = inference.reply_message(drawn.reply(datatype, array), is_raw=is_raw)
    return message, inference.decode_infer(as_request(message))


@drawn.patient
@given(st.data(), st.sampled_from(drawn.DATATYPES))
def test_every_datatype_comes_back_raw(data: st.DataObject, datatype: str) -> None:
    array = data.draw(drawn.arrays(datatype))
    message, came = there_and_back(datatype, array, is_raw=True)
    assert came.is_raw
    assert not message.outputs[0].HasField("contents")
    assert came.inputs["x"].datatype == datatype
    assert drawn.is_same(came.inputs["x"].array, array)


@drawn.patient
@given(st.data(), st.sampled_from(drawn.TYPED))
def test_every_datatype_but_the_halves_comes_back_typed(data: st.DataObject, datatype: str) -> None:
    array = data.draw(drawn.arrays(datatype))
    message, came = there_and_back(datatype, array, is_raw=False)
    assert not came.is_raw
    assert not message.raw_output_contents
    assert came.inputs["x"].array.shape == array.shape
    np.testing.assert_array_equal(came.inputs["x"].array, array)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_an_answer_is_all_raw_where_one_output_has_no_typed_form(datatype: str) -> None:
    specs = (model.TensorSpec("half", datatype, (1,)), model.TensorSpec("x", "FP32", (1,)))
    outputs = {"x": np.ones(1, "f4"), "half": np.ones(1, tensors.DTYPES[datatype])}
    message = inference.reply_message(
        inference.InferReply("m", "1", "", outputs, model.Signature((), specs)), is_raw=False
    )
    assert [output.name for output in message.outputs] == ["half", "x"]
    assert list(message.raw_output_contents) == [
        tensors.to_raw(outputs["half"]),
        tensors.to_raw(outputs["x"]),
    ]


def test_a_call_has_what_the_message_says() -> None:
    came = inference.decode_infer(drawn.valid_request().SerializeToString())
    assert (came.model, came.version, came.id, came.outputs, came.is_raw) == (
        "m",
        "",
        "7",
        ("y",),
        True,
    )
    taken = inference.check_inputs(came, drawn.SIGNATURE)
    assert taken["x"].tolist() == [[1, 1], [1, 1]]
    assert taken["name"].tolist() == [[b"a"], [b"bc"]]


def test_an_answer_has_what_was_asked_for_and_the_requests_id() -> None:
    specs = tuple(model.TensorSpec(name, "FP32", (1,)) for name in "ab")
    answer = inference.InferReply(
        "m", "3", "7", {"b": np.ones(1, "f4")}, model.Signature((), specs)
    )
    message = pb.ModelInferResponse.FromString(inference.encode_infer(answer, is_raw=True))
    assert (message.model_name, message.model_version, message.id) == ("m", "3", "7")
    assert [(output.name, output.datatype, list(output.shape)) for output in message.outputs] == [
        ("b", "FP32", [1])
    ]
    assert not message.parameters


def test_an_output_of_another_datatype_is_the_models_fault() -> None:
    with pytest.raises(
        errors.ModelRaised, match=r"output 'x' is declared as FP32, the model gave float64"
    ):
        inference.encode_infer(drawn.reply("FP32", np.ones(1, "f8")), is_raw=True)


def test_texts_may_be_numpys_own() -> None:
    assert inference.reply_message(drawn.reply("BYTES", np.array(["ä"])), is_raw=False).outputs[
        0
    ].contents.bytes_contents == ["ä".encode()]


def test_empty_contents_beside_raw_ones_are_none() -> None:
    message = drawn.request(("x", "INT8", [1], {}), raw=[b"\x07"])
    assert inference.decode_infer(message.SerializeToString()).inputs["x"].array.tolist() == [7]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            drawn.request(("x", "FP32", [1], {"fp32_contents": [1]}), raw=[b"1234"]),
            "input 'x' has contents beside raw_input_contents: use one of the two for all",
        ),
        (
            drawn.request(("x", "INT8", [1]), ("z", "INT8", [1]), raw=[b"1"]),
            "2 inputs came with 1 raw_input_contents: there must be one for each",
        ),
        (
            drawn.request(("x", "INT8", [1]), ("x", "INT8", [1]), raw=[b"1", b"2"]),
            "input 'x' came twice",
        ),
        (
            drawn.request(("x", "FP32", [2], {"fp32_contents": [1, 2, 3]})),
            "input 'x' of shape [2] takes 2 elements, 3 came",
        ),
        (
            drawn.request(("x", "FP32", [1], {"fp32_contents": [1], "int_contents": [1]})),
            "input 'x' of FP32 belongs into fp32_contents, not int_contents",
        ),
        (
            drawn.request(("x", "FP16", [1], {"fp32_contents": [1]})),
            "input 'x': FP16 can only be sent in raw_input_contents",
        ),
        (
            drawn.request(("x", "INT8", [1], {"int_contents": [300]})),
            "input 'x' has values out of the range of INT8",
        ),
        (drawn.request(("x", "FP32", [-1])), "tensor 'x' has a negative size in shape [-1]"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_a_message_that_contradicts_itself_is_refused(
    message: pb.ModelInferRequest, expected: str
) -> None:
    assert drawn.refusal(inference.decode_infer, message.SerializeToString()) == expected


def test_parameters_that_change_the_meaning_are_refused() -> None:
    shared = drawn.request(("x", "FP32", [1]))
    shared.inputs[0].parameters["shared_memory_region"].string_param = "region"
    assert "shared memory is not offered" in drawn.refusal(inference.call_from_message, shared)
    mixed = drawn.request(("a", "FP32", [1]), ("x", "FP32", [1]), raw=[bytes(4)])
    mixed.inputs[1].parameters["shared_memory_region"].string_param = "region"
    assert "shared memory is not offered" in drawn.refusal(inference.call_from_message, mixed)
    for name, value in (
        ("sequence_id", {"int64_param": 3}),
        ("sequence_end", {"bool_param": True}),
    ):
        sequence = drawn.request(parameters={name: value})
        refused = drawn.refusal(inference.call_from_message, sequence)
        assert refused == f"{name}: sequences are not offered: each request is on its own"
    alone = drawn.request(
        parameters={"sequence_id": {"int64_param": 0}, "priority": {"int64_param": 1}}
    )
    assert inference.call_from_message(alone).model == "m"


def test_an_output_that_is_requested_twice_is_refused() -> None:
    twice = drawn.request(outputs=[{"name": "y"}, {"name": "z"}, {"name": "y"}])
    assert (
        drawn.refusal(inference.call_from_message, twice) == "output 'y' already exists in request"
    )


def test_a_body_that_is_no_message_is_refused() -> None:
    assert drawn.refusal(inference.decode_infer, b"\xff") == "the body is not a ModelInferRequest"
    assert (
        drawn.refusal(inference.decode_infer, b"\x0a\x01\xff")
        == "the body is not a ModelInferRequest"
    )


@pytest.mark.parametrize("asked", [call(X[:0], NAMES[:0]), call(X[:1])])
def test_first_sizes_that_are_zero_or_unequal_are_left_to_the_model(
    asked: inference.InferCall,
) -> None:
    assert len(inference.check_inputs(asked, drawn.SIGNATURE)) == 2


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (inference.InferCall("m"), "input 'x' (FP32 [-1, 2]) is missing"),
        (
            inference.InferCall(
                "m",
                inputs={
                    "x": inference.WireTensor("FP32", X),
                    "nmae": inference.WireTensor("BYTES", NAMES),
                },
            ),
            "input 'name' (BYTES [-1, 1]) is missing; 'nmae' came, is it meant?",
        ),
        (call(x_as="FP64"), "input 'x' must be FP32, FP64 came"),
        (call(X[0]), "input 'x' must have 2 dimensions, [-1, 2] (-1 is any size); [2] came"),
        (call(X[:, :1]), "input 'x' must have the shape [-1, 2] (-1 is any size); [2, 1] came"),
        (
            call(outputs=("y", "lable")),
            (
                "unexpected inference output 'lable': the model has no output 'lable'; "
                "did you mean 'label'? it has: y, label"
            ),
        ),
        (
            call(outputs=("zzzz",)),
            "unexpected inference output 'zzzz': the model has no output 'zzzz'; it has: y, label",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_a_call_that_does_not_fit_is_refused_with_what_would(
    asked: inference.InferCall, expected: str
) -> None:
    assert drawn.refusal(inference.check_inputs, asked, drawn.SIGNATURE) == expected


def test_an_unknown_input_is_refused_with_the_nearest() -> None:
    asked = call()
    asked.inputs["xx"] = inference.WireTensor("FP32", X)
    assert (
        drawn.refusal(inference.check_inputs, asked, drawn.SIGNATURE)
        == "unexpected inference input 'xx': the model has no input 'xx'; "
        "did you mean 'x'? it has: x, name"
    )


def test_a_size_that_is_free_and_no_batch_may_be_nothing() -> None:
    asked = inference.InferCall(
        "m", inputs={"x": inference.WireTensor("FP32", np.ones((1, 0), "f4"))}
    )
    assert inference.check_inputs(asked, drawn.one_input("FP32", (1, -1)))["x"].shape == (1, 0)


def infer(body: bytes, signature: model.Signature = drawn.SIGNATURE) -> None:
    inference.check_inputs(inference.decode_infer(body), signature)


@drawn.often
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(body: bytes) -> None:
    drawn.answers(infer, body)


@drawn.often
@given(drawn.broken(drawn.valid_request().SerializeToString()))
def test_any_broken_message_is_answered(body: bytes) -> None:
    drawn.answers(infer, body)


CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), max_size=3),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        "uint_contents": st.lists(st.integers(0, 2**32 - 1), max_size=3),
        "uint64_contents": st.lists(st.integers(0, 2**64 - 1), max_size=3),
        "fp32_contents": st.lists(st.floats(width=32), max_size=3),
        "bytes_contents": st.lists(st.binary(max_size=3), max_size=3),
    },
)
INPUTS = st.tuples(
    st.sampled_from(["x", "name", "é"]), drawn.WORDS, st.lists(drawn.SIZES, max_size=3), CONTENTS
)


@drawn.often
@given(st.lists(INPUTS, max_size=3), st.lists(st.binary(max_size=20), max_size=3))
def test_any_message_is_answered(
    inputs: list[tuple[str, str, list[int], dict[str, Any]]], raw: list[bytes]
) -> None:
    drawn.answers(infer, drawn.request(*inputs, raw=raw).SerializeToString())


def test_only_an_optional_input_may_be_left_out() -> None:
    specs = (model.TensorSpec("x", "FP32", (1,)), model.TensorSpec("mask", "FP32", (1,)))
    wire = inference.WireTensor("FP32", np.ones(1, "f4"))
    signature = model.Signature(specs, (), optional=frozenset({"mask"}))
    assert list(
        inference.check_inputs(inference.InferCall("m", inputs={"x": wire}), signature)
    ) == ["x"]
    with pytest.raises(errors.InvalidRequest, match=r"'x' .* is missing"):
        inference.check_inputs(inference.InferCall("m", inputs={"mask": wire}), signature)


def test_an_open_signature_takes_what_comes() -> None:
    declared = (model.TensorSpec("usual", "FP32", (1,)),)
    signature = model.Signature(declared, declared, is_open=True)
    came = call(outputs=("whatever",))
    assert inference.check_inputs(came, signature)["x"] is X
    bits = tensors.bfloat16_bits(X)
    half = inference.check_inputs(call(bits, x_as="BF16"), signature)["x"]
    np.testing.assert_array_equal(half, X, strict=True)
    assert inference.row_count({"x": X}, signature) == 1


def test_an_answer_s_parameters_go_back() -> None:
    said = model_runtime.AnswerTensors({"y": X}, {"took": 3}, {"y": {"content_type": "np"}})
    signature = model.Signature((), (model.TensorSpec("y", "FP32", (2, 2)),))
    reply = inference.InferReply("m", "1", "", said, signature)
    message = pb.ModelInferResponse.FromString(inference.encode_infer(reply, is_raw=True))
    assert message.parameters["took"].int64_param == 3
    assert message.outputs[0].parameters["content_type"].string_param == "np"
