from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.protocol import inference, zero_copy
from meshserve.protocol.pb import inference_pb2 as pb
from tests.protocol import drawn

BIG = 3 * zero_copy.BYTES_MIN


@pytest.fixture(autouse=True, scope="module")
def lifting_all() -> Iterator[None]:
    """Whatever its size, a message is taken apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero_copy, "BYTES_MIN", 0)
        yield


def outcome(
    decode: Callable[..., Any], *args: bytes | pb.ModelInferRequest
) -> str | tuple[bool | str | tuple[Any, ...], ...]:
    """What a call says, or the words of its refusal."""
    try:
        call = decode(*args)
    except errors.InvalidRequest as error:
        return error.message
    inputs = {
        name: (tensor.datatype, tensor.array.tolist(), tensor.array.shape)
        for name, tensor in call.inputs.items()
    }
    return call.model, call.version, call.id, str(inputs), call.outputs, call.is_raw


def parsed(body: bytes) -> str | tuple[bool | str | tuple[Any, ...], ...]:
    """By the parser alone."""
    try:
        message = pb.ModelInferRequest.FromString(body)
    except DecodeError:
        return "the body is not a ModelInferRequest"
    return outcome(inference.call_from_message, message)


def request(*raw: bytes, datatype: str = "FP32") -> pb.ModelInferRequest:
    request_ = pb.ModelInferRequest(model_name="m", id="7", raw_input_contents=raw)
    for number, tensor in enumerate(raw):
        request_.inputs.add(name=f"x{number}", datatype=datatype, shape=[len(tensor) // 4])
    return request_


@drawn.patient
@given(
    st.lists(st.binary(max_size=3).map(lambda part: part * 4), max_size=4),
    st.binary(max_size=6),
    st.integers(0, 40),
)
def test_split_messages_mean_the_same_to_the_parser(
    raw: list[bytes], junk: bytes, place: int
) -> None:
    body = request(*raw).SerializeToString()
    assert outcome(inference.decode_infer, body) == parsed(body)
    broken = body[:place] + junk + body[place:]
    assert outcome(inference.decode_infer, broken) == parsed(broken)


@drawn.often
@given(st.binary(max_size=60))
def test_any_bytes_mean_the_same_to_the_parser(body: bytes) -> None:
    assert outcome(inference.decode_infer, body) == parsed(body)


@pytest.mark.parametrize(
    "tag",
    [b"\x3a", b"\xba\x00", b"\xba\x80\x80\x00"],
    ids=["the shortest tag", "a longer one", "a longer one still"],
)
def test_a_tensor_is_taken_out_whatever_its_tag_looks_like(tag: bytes) -> None:
    body = request(b"1234").SerializeToString()
    at = body.index(b"\x3a\x041234")
    odd = body[:at] + tag + body[at + 1 :] + tag + b"\x00"
    rest, split = zero_copy.split_raw_tensors(odd)
    assert [bytes(tensor) for tensor in split] == [b"1234", b""]
    assert pb.ModelInferRequest.FromString(rest).raw_input_contents == []
    assert outcome(inference.decode_infer, odd) == parsed(odd)


def test_an_aligned_big_tensor_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_copy, "BYTES_MIN", BIG)
    content = np.arange(BIG // 4, dtype="<f4").tobytes()
    for padding in range(4):
        message = request(content)
        message.id = "i" * (8 + padding)
        array = inference.decode_infer(message.SerializeToString()).inputs["x0"].array
        assert array.tobytes() == content
        assert array.flags.aligned
        assert not array.flags.writeable


def test_a_message_of_many_fields_is_the_parser_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_copy, "FIELDS_MAX", 3)
    body = request(b"1234", b"5678").SerializeToString()
    assert zero_copy.split_raw_tensors(body) == (body, [])
    assert outcome(inference.decode_infer, body) == parsed(body)


def test_bytes_and_truth_values_are_checked_as_ever() -> None:
    texts = request(b"\x02\x00\x00\x00ab", datatype="BYTES")
    assert inference.decode_infer(texts.SerializeToString()).inputs["x0"].array.tolist() == [b"ab"]
    odd = request(b"\x02\x00\x00\x00", datatype="BOOL")
    odd.inputs[0].shape[0] = 4
    assert "neither 0 nor 1" in drawn.refusal(inference.decode_infer, odd.SerializeToString())
