from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import tensors
from tests.protocol import drawn


@drawn.patient
@given(st.data(), st.sampled_from(drawn.DATATYPES))
def test_raw_bytes_bring_the_same_tensor_back(data: st.DataObject, datatype: str) -> None:
    array = data.draw(drawn.arrays(datatype))
    assert drawn.is_same(tensors.from_raw(tensors.to_raw(array), datatype, array.shape, "x"), array)


@drawn.often
@given(st.binary(max_size=64), drawn.WORDS, st.lists(drawn.SIZES, max_size=4))
def test_any_bytes_are_a_tensor_or_an_invalid_request(
    raw: bytes, datatype: str, shape: list[int]
) -> None:
    if drawn.answers(tensors.from_raw, raw, datatype, shape, "x"):
        assert tensors.to_raw(tensors.from_raw(raw, datatype, shape, "x")) == raw


def test_numbers_are_not_copied() -> None:
    raw = np.arange(6, dtype="f4").tobytes()
    decoded = tensors.from_raw(raw, "FP32", [2, 3], "x")
    assert np.shares_memory(decoded, np.frombuffer(raw, "u1"))
    assert not decoded.flags.writeable


@pytest.mark.parametrize(
    ("raw", "datatype", "shape", "expected"),
    [
        (
            b"1234567",
            "FP32",
            [2],
            "tensor 'x' of FP32 [2] takes 8 bytes, 7 came: the message was cut short",
        ),
        (b"123456789", "FP32", [2], "tensor 'x' of FP32 [2] takes 8 bytes, 9 came"),
        (b"12345678", "FP32", [-1, -2], "tensor 'x' has a negative size in shape [-1, -2]"),
        (b"", "FP32", [2**40, 2**40], f"tensor 'x' of shape [{2**40}, {2**40}] is too big"),
        (b"", "FP32", [0, 2**62, 4], f"tensor 'x' of shape [0, {2**62}, 4] is too big"),
        (b"1234", "FP32", [1] * 65, "tensor 'x' has 65 dimensions; 32 is the most"),
        (b"\0\1\2", "BOOL", [3], "tensor 'x' of BOOL has bytes that are neither 0 nor 1"),
        (b"abc", "BYTES", [2**39], f"tensor 'x' has {2**39} elements, its 3 bytes can't hold them"),
        (b"\0" * 8, "BYTES", [1], "tensor 'x' has 4 bytes more than its 1 elements"),
        (
            struct.pack("<I", 9) + b"abc",
            "BYTES",
            [1],
            "tensor 'x': element 0 claims 9 bytes, 3 are left",
        ),
        (struct.pack("<I", 3) + b"abc\0", "BYTES", [2], "tensor 'x' ends before element 1 of 2"),
    ],
)
def test_a_wrong_size_is_refused_with_both_sizes(
    raw: bytes, datatype: str, shape: list[int], expected: str
) -> None:
    assert drawn.refusal(tensors.from_raw, raw, datatype, shape, "x") == expected


def test_an_unknown_datatype_is_refused_with_the_known_ones() -> None:
    assert drawn.refusal(tensors.dtype, "FP8").startswith(
        "datatype 'FP8' is unknown; there are: BOOL, UINT8"
    )


def test_other_byte_orders_and_layouts_are_little_endian_rows_on_the_wire() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert tensors.to_raw(array) == np.array([0, 3, 1, 4, 2, 5], "<i4").tobytes()


def test_texts_of_any_kind_are_utf8_on_the_wire() -> None:
    expected = b"\x02\0\0\0\xc3\xa4\x01\0\0\0b"
    assert tensors.to_raw(np.array(["ä", "b"])) == expected
    assert tensors.to_raw(np.array(["ä", b"b"], object)) == expected
    assert tensors.as_bytes("\ud800") == b"?"


@drawn.patient
@given(st.data())
def test_every_bf16_is_an_fp32_and_back(data: st.DataObject) -> None:
    bits = data.draw(drawn.arrays("BF16"))
    floats = tensors.bfloat16_values(bits)
    expected = np.where(np.isnan(floats), 0x7FC0, bits)
    assert np.array_equal(tensors.bfloat16_bits(floats), expected)


@pytest.mark.parametrize(
    ("number", "bits"),
    [(1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (-3e38, 0xFF62), (np.inf, 0x7F80)],
)
def test_bf16_is_rounded_to_the_nearest_even(number: float, bits: int) -> None:
    assert tensors.bfloat16_bits(np.array([number], "f4")).tolist() == [bits]


def test_an_open_signature_has_the_answer_s_own_outputs() -> None:
    declared = model.Signature((), (model.TensorSpec("usual", "FP32", (1,)),), is_open=True)
    arrays = {"a": np.zeros((2, 1), "i8"), "b": np.array(["x"]), "c": np.zeros(1, np.longlong)}
    outputs = tensors.answered(declared, arrays).outputs
    assert [(spec.name, spec.datatype, spec.shape) for spec in outputs] == [
        ("a", "INT64", (2, 1)),
        ("b", "BYTES", (1,)),
        ("c", "INT64", (1,)),
    ]
    closed = replace(declared, is_open=False)
    assert tensors.answered(closed, arrays) is closed
    unknown = replace(closed, outputs=())
    assert tensors.answered(unknown, arrays).outputs == outputs
    with pytest.raises(errors.ModelRaised, match="'z' is of complex128"):
        tensors.answered(declared, {"z": np.zeros(1, complex)})
