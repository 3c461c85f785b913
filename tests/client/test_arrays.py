from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from meshserve import errors
from meshserve.client import arrays
from meshserve.core.values import model
from meshserve.protocol import tensors
from meshserve.protocol.pb import inference_pb2 as pb

NUMBERS = [
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP16",
    "FP32",
    "FP64",
]


def spec(datatype: str) -> model.TensorSpec:
    return model.TensorSpec("x", datatype, (-1,))


@given(st.data(), st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))
def test_an_array_is_cast_without_loss_or_not_at_all(
    data: st.DataObject, given_type: str, wanted_type: str
) -> None:
    elements = {"allow_nan": False} if "FP" in given_type else None
    array = data.draw(
        st_numpy.arrays(tensors.dtype(given_type), st.integers(0, 3), elements=elements)
    )
    try:
        cast = arrays.fit(array, spec(wanted_type))
    except errors.InvalidRequest:
        assert given_type != wanted_type
    else:
        assert cast.dtype == tensors.dtype(wanted_type)
        assert cast.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (np.array([0.5]), "FP32"),
        (np.array([1.0], np.float32), "INT32"),
        ([0.5], "INT64"),
        ([300], "UINT8"),
        ([-1], "UINT64"),
        ([2**24 + 1], "FP32"),
        ([1e300], "FP32"),
        (["a"], "FP32"),
        ([True], "FP32"),
        ([1], "BOOL"),
        ([1], "BYTES"),
        ([[1], [1, 2]], "INT64"),
    ],
)
def test_a_cast_that_loses_something_is_refused(value: Any, datatype: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="input x"):
        arrays.fit(value, spec(datatype))


def test_a_refused_array_names_the_remedy() -> None:
    with pytest.raises(
        errors.InvalidRequest, match=r"wants FP32: float64 .* \.astype\(np\.float32\)"
    ):
        arrays.fit(np.array([0.1]), spec("FP32"))


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([0.1], "FP32"),
        ([1, 2], "FP64"),
        ([], "INT8"),
        ([True], "BOOL"),
        ([7], "UINT8"),
        (3, "INT32"),
    ],
)
def test_pythons_own_numbers_become_the_models(value: Any, datatype: str) -> None:
    array = arrays.fit(value, spec(datatype))
    np.testing.assert_array_equal(array, np.asarray(value, tensors.dtype(datatype)))


@pytest.mark.parametrize(
    "value", [["é", b"\0"], np.array(["é", "b"]), np.array([b"a", b"b"], object)]
)
def test_texts_become_bytes(value: Any) -> None:
    array = arrays.fit(value, spec("BYTES"))
    assert array.tolist() == [
        text.encode() if isinstance(text, str) else text for text in list(value)
    ]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(errors.InvalidRequest, match=r"no input 'z': it takes x \(FP32\)"):
        list(arrays.fit_all("m", {"z": [1.0]}, [spec("FP32")]))


def answer(datatype: str, raw: list[bytes], **contents: Any) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(raw_output_contents=raw)
    output = message.outputs.add(name="y", datatype=datatype, shape=[2])
    for name, values in contents.items():
        getattr(output.contents, name).extend(values)
    return message


def test_answers_are_the_callers_to_change() -> None:
    output = arrays.from_answer(answer("INT16", [b"\1\0\2\0"]))["y"]
    output += 1
    assert output.tolist() == [2, 3]


def test_bf16_comes_as_float32() -> None:
    output = arrays.from_answer(answer("BF16", [b"\x80\x3f\x20\xc0"]))["y"]
    assert output.dtype == np.float32
    assert output.tolist() == [1.0, -2.5]


def test_texts_come_as_bytes_raw_or_typed() -> None:
    raw = arrays.from_answer(answer("BYTES", [tensors.to_raw(np.array([b"a", b"\0"], object))]))[
        "y"
    ]
    typed = arrays.from_answer(answer("BYTES", [], bytes_contents=[b"a", b"\0"]))["y"]
    assert raw.tolist() == typed.tolist() == [b"a", b"\0"]


def test_a_cut_answer_is_an_error() -> None:
    with pytest.raises(errors.InvalidRequest, match="cut short"):
        arrays.from_answer(answer("FP32", [b"\0" * 7]))
