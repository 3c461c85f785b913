"""Calls and answers that come again are what they are without memory, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.protocol import inference, repeated_calls, tensors, zero_copy
from meshserve.protocol.pb import inference_pb2 as pb
from tests.protocol import drawn

OFTEN = repeated_calls.MISSES_MIN
NUMBERS = sorted(tensors.NUMBERS)
OTHERS = [datatype for datatype in drawn.DATATYPES if datatype not in tensors.NUMBERS]


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    repeated_calls._forms.clear()
    repeated_calls._misses.clear()
    yield
    repeated_calls._forms.clear()
    repeated_calls._misses.clear()


def request(x: np.ndarray, datatype: str = "FP32", **fields: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(
        **{"model_name": "m", "raw_input_contents": [tensors.to_raw(x)], **fields}
    )
    message.inputs.add(name="x", datatype=datatype, shape=x.shape)
    return message


def floats(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def body_of(*values: float, **fields: Any) -> bytes:
    return request(floats(*values), **fields).SerializeToString()


def outcome(decode: Any, body: bytes) -> Any:
    """Return all that a call says, or the error's text."""
    try:
        call = decode(body)
    except errors.InvalidRequest as error:
        return error.message
    source = pb.ModelInferRequest()
    source.CopyFrom(call.source)
    source.ClearField("raw_input_contents")
    inputs = [
        (name, tensor.datatype, tensor.array.dtype, tensor.array.shape, tensor.array.tolist())
        for name, tensor in call.inputs.items()
    ]
    flags = [tensor.array.flags.writeable for tensor in call.inputs.values()]
    names = (call.model, call.version, call.id, call.outputs, call.classes, call.is_raw)
    return names, str(inputs), flags, source.SerializeToString(deterministic=True), call.headers


def assert_same(body: bytes) -> None:
    expected = outcome(inference.decode_infer, body)
    assert outcome(repeated_calls.decode_infer, body) == expected


def is_known(body: bytes) -> bool:
    return any(
        body.startswith(form.head) and form.size_bytes == len(body)
        for form in repeated_calls._forms.values()
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.data(),
    st.sampled_from(drawn.DATATYPES),
    st.text(max_size=200),
    st.sampled_from([{}, {"model_version": "2"}, {"id": "7"}, {"model_version": "1", "id": "ä"}]),
)
def test_a_call_that_comes_again_is_the_same_with_its_own_numbers(
    data: st.DataObject, datatype: str, name: str, fields: dict[str, str]
) -> None:
    array = data.draw(drawn.arrays(datatype))
    message = request(array, datatype, model_name=name, **fields)
    message.outputs.add(name="y").parameters["classification"].int64_param = data.draw(
        st.integers(0, 3)
    )
    message.parameters["said"].string_param = data.draw(st.text(max_size=3))
    body = message.SerializeToString()
    for _ in range(OFTEN + 1):
        assert_same(body)
    assert is_known(body) == (datatype in tensors.NUMBERS and "id" not in fields)
    for seed in range(3):
        mixed = np.array(list(tensors.to_raw(array)), np.uint8)
        np.random.default_rng(seed).shuffle(mixed)
        message.raw_input_contents[0] = mixed.tobytes()
        assert_same(message.SerializeToString())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.sampled_from([16, 130, 20_000]))
def test_bytes_changed_anywhere_are_read_as_without_memory(chance: Any, count: int) -> None:
    body = body_of(*range(count), model_version="3")
    for _ in range(OFTEN):
        repeated_calls.decode_infer(body)
    changed = bytearray(body)
    for _ in range(chance.randint(1, 3)):
        # Mostly within the head: its end is where a mistake would be.
        changed[chance.randrange(min(len(body), 48))] = chance.randrange(256)
    if chance.random() < 0.3:
        del changed[chance.randrange(len(changed)) :]
    if chance.random() < 0.3:
        changed += bytes(chance.randrange(256) for _ in range(chance.randint(1, 6)))
    for _ in range(OFTEN + 1):
        assert_same(bytes(changed))
    assert_same(body)


def test_numbers_that_look_like_the_end_of_a_message_are_no_end() -> None:
    # The name is the last field, and before it the tensor's own bytes are those of its tag.
    name = pb.ModelInferRequest(model_name="abcdef").SerializeToString()
    for size in (16, 24):
        tag = repeated_calls.RAW_INPUT_TAG + bytes([size])
        contents = bytes(size - (size - len(name)) - len(tag)) + tag + bytes(size - len(name))
        message = request(floats(*range(size // 4)), model_name="")
        message.raw_input_contents[0] = contents[-size:]
        body = message.SerializeToString() + name
        for _ in range(OFTEN + 1):
            assert_same(body)
        assert not is_known(body)
        assert_same(body[:-3] + b"xyz")


def test_the_last_name_of_a_message_wins_each_time() -> None:
    body = pb.ModelInferRequest(model_name="first").SerializeToString() + body_of(1, 2)
    for _ in range(OFTEN + 1):
        assert repeated_calls.decode_infer(body).model == "m"
    assert is_known(body)


def test_what_is_done_to_a_call_is_not_done_to_the_next() -> None:
    body = body_of(1, 2)
    for _ in range(OFTEN + 2):
        call = repeated_calls.decode_infer(body)
        assert (call.model, call.version, call.headers, list(call.inputs)) == ("m", "", (), ["x"])
        call.model, call.version, call.headers = "other", "9", ((b"a", b"b"),)
        call.inputs.clear()


def test_no_ones_numbers_are_kept() -> None:
    body = body_of(12345.0, 2)
    for _ in range(OFTEN):
        repeated_calls.decode_infer(body)
    (form,) = repeated_calls._forms.values()
    assert form.call.inputs == {}
    assert isinstance(form.call.source, pb.ModelInferRequest)
    assert not form.call.source.raw_input_contents
    assert np.float32(12345.0).tobytes() not in form.head


def test_several_sizes_and_two_models_take_turns() -> None:
    for turn in range(5 * OFTEN):
        rows = random.Random(turn).randrange(1, 4)
        assert_same(body_of(*range(rows), model_name=f"m{turn % 2}"))
    assert len(repeated_calls._forms) == 2


@pytest.mark.parametrize("extra", ["two inputs", "no input", "typed", "large", "twice"])
def test_other_calls_are_always_parsed(extra: str) -> None:
    message = request(floats(1, 2))
    if extra == "two inputs":
        message.inputs.add(name="z", datatype="FP32", shape=[1])
        message.raw_input_contents.append(bytes(4))
    elif extra == "no input":
        message = pb.ModelInferRequest(model_name="m")
    elif extra == "typed":
        message.ClearField("raw_input_contents")
        message.inputs[0].contents.fp32_contents.extend([1, 2])
    elif extra == "large":
        message = request(np.zeros(zero_copy.BYTES_MIN, np.uint8), "UINT8")
    else:
        message.inputs.add(name="x", datatype="FP32", shape=[1])
    for _ in range(OFTEN + 1):
        assert_same(message.SerializeToString())
    assert not repeated_calls._forms


@pytest.mark.parametrize("body", [b"", b"\n", b"\n\x01", b"\xff\xff", b"\n\x7fm"])
def test_short_and_broken_bodies_are_refused_or_read_as_ever(body: bytes) -> None:
    for _ in range(OFTEN + 1):
        assert_same(body)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_calls, "FORMS_MAX", 3)
    monkeypatch.setattr(repeated_calls, "MISSES_MAX", 5)
    for number in range(20):
        for _ in range(OFTEN):
            assert_same(body_of(1, 2, model_name=f"m{number}"))
    assert 1 <= len(repeated_calls._forms) <= 3
    assert len(repeated_calls._misses) <= 5


@drawn.patient
@given(st.data(), st.sampled_from(drawn.DATATYPES), st.text(max_size=300), st.booleans())
def test_an_answer_has_the_bytes_that_protobuf_gives(
    data: st.DataObject, datatype: str, id_: str, is_raw: bool
) -> None:
    array = data.draw(drawn.arrays(datatype))
    reply = drawn.reply(datatype, array)._replace(id=id_)
    expected = inference.encode_infer(reply, is_raw=is_raw)
    for _ in range(2):
        assert repeated_calls.encode_infer(reply, is_raw=is_raw) == expected


@pytest.mark.parametrize("size", [0, 1, 31, 32, 4095, 4096, 1 << 19])
def test_answers_of_any_size_have_their_lengths(size: int) -> None:
    reply = drawn.reply("FP32", np.arange(size, dtype=np.float32))
    assert repeated_calls.encode_infer(reply, is_raw=True) == inference.encode_infer(
        reply, is_raw=True
    )


def test_outputs_of_two_datatypes_stand_in_the_signatures_order() -> None:
    outputs = {"label": drawn.of_objects([b"a"], (1,)), "y": np.zeros((1, 3), np.float32)}
    reply = inference.InferReply("m", "", "", outputs, drawn.SIGNATURE)
    encoded = repeated_calls.encode_infer(reply, is_raw=True)
    assert encoded == inference.encode_infer(reply, is_raw=True)
    assert [out.name for out in pb.ModelInferResponse.FromString(encoded).outputs] == ["y", "label"]


def test_an_answer_with_parameters_keeps_them() -> None:
    said = model_runtime.AnswerTensors({"x": np.ones(1, np.float32)}, {"took": 3})
    reply = drawn.reply("FP32", np.ones(1, np.float32))._replace(outputs=said)
    encoded = repeated_calls.encode_infer(reply, is_raw=True)
    assert pb.ModelInferResponse.FromString(encoded).parameters["took"].int64_param == 3


def test_an_output_of_another_dtype_is_the_models_mistake() -> None:
    with pytest.raises(errors.ModelRaised, match="declared as FP32"):
        repeated_calls.encode_infer(drawn.reply("FP32", np.ones(1, "f8")), is_raw=True)
