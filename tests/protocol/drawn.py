"""What Hypothesis draws: tensors of every datatype, messages with them, broken messages."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import inference, tensors
from meshserve.protocol.pb import inference_pb2 as pb

DATATYPES = list(tensors.DTYPES)
TYPED = list(inference.CONTENTS)
SHAPES = st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
WORDS = st.sampled_from([*DATATYPES, "FP8", "bytes", "", "INT"])
SIZES = st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**63 - 1))
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)

often = settings(deadline=None, max_examples=300)
patient = settings(deadline=None)

SIGNATURE = model.Signature(
    (model.TensorSpec("x", "FP32", (-1, 2)), model.TensorSpec("name", "BYTES", (-1, 1))),
    (model.TensorSpec("y", "FP32", (-1, 3)), model.TensorSpec("label", "BYTES", (-1,))),
    has_batch_dimension=True,
    can_join=True,
)


def one_input(datatype: str, shape: tuple[int, ...] = (-1,)) -> model.Signature:
    """A signature of one input `x`, which is also its output."""
    specs = (model.TensorSpec("x", datatype, tuple(shape)),)
    return model.Signature(specs, specs)


def reply(datatype: str, array: npt.NDArray[Any]) -> inference.InferReply:
    """An answer with one output `x`."""
    return inference.InferReply("m", "1", "7", {"x": array}, one_input(datatype, array.shape))


def arrays(datatype: str, *, is_text: bool = False, is_finite: bool = False) -> Any:
    """Arrays that tensors of a datatype are in memory."""
    if datatype == "BYTES":
        elements = st.text(max_size=5).map(str.encode) if is_text else st.binary(max_size=5)
        return SHAPES.flatmap(
            lambda shape: st.lists(
                elements, min_size=math.prod(shape), max_size=math.prod(shape)
            ).map(lambda objects_: of_objects(objects_, shape))
        )
    is_limited = is_finite and datatype.startswith("FP")
    limits = {"allow_nan": False, "allow_infinity": False} if is_limited else None
    return st_numpy.arrays(tensors.DTYPES[datatype], SHAPES, elements=limits)


def of_objects(objects_: list[bytes], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    array = np.empty(len(objects_), object)
    array[:] = objects_
    return array.reshape(shape)


def is_same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether two arrays are equal to the last bit."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and tensors.to_raw(one) == tensors.to_raw(other)
    )


@st.composite
def broken(draw: Callable[..., Any], whole: bytes) -> Any:
    """Bytes of a message with some of them changed, cut out, doubled or added."""
    mutated = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(mutated)))
        end = min(len(mutated), begin + draw(st.integers(0, 6)))
        mutated[begin:end] = draw(
            st.one_of(st.binary(max_size=6), st.just(bytes(mutated[begin:end] * 2)))
        )
    return bytes(mutated)


def answers(decode: Callable[..., Any], *given: Any) -> bool:
    """Whether `decode` takes what it is given; it may raise InvalidRequest and nothing else."""
    try:
        decode(*given)
    except errors.InvalidRequest:
        return False
    return True


def refusal(decode: Callable[..., Any], *given: Any) -> str:
    """The message with which `decode` refuses."""
    with pytest.raises(errors.InvalidRequest) as refused:
        decode(*given)
    return refused.value.message


def request(
    *inputs: tuple[dict[str, Any] | list[int] | str, ...],
    raw: list[bytes] | tuple[Any, ...] = (),
    **more: Any,
) -> pb.ModelInferRequest:
    """Return a ModelInferRequest; inputs are (name, datatype, shape) and perhaps contents."""
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=raw, **more)
    for name, datatype, shape, *contents in inputs:
        message.inputs.add(
            name=name, datatype=datatype, shape=shape, contents=contents[0] if contents else None
        )
    return message


def valid_request() -> pb.ModelInferRequest:
    """A raw request that fits SIGNATURE."""
    raw = [np.ones((2, 2), "f4").tobytes(), tensors.to_raw(np.array([[b"a"], [b"bc"]], object))]
    return request(
        ("x", "FP32", [2, 2]), ("name", "BYTES", [2, 1]), raw=raw, id="7", outputs=[{"name": "y"}]
    )


def valid_document() -> dict[str, Any]:
    """The same in JSON."""
    x = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2.5, 3, None]}
    name = {
        "name": "name",
        "datatype": "BYTES",
        "shape": [2, 1],
        "data": [["a"], [{"b64": base64.b64encode(b"\xff").decode()}]],
    }
    return {
        "id": "7",
        "inputs": [x, name],
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
    }
