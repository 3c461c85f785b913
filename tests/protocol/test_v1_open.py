from __future__ import annotations

from typing import Any

import orjson
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import v1

UNKNOWN = model.Signature((), (), has_open_inputs=True)
NAMED = model.Signature(
    (model.TensorSpec("x", "", ()),), (), has_open_inputs=True, platform="pytorch_libtorch"
)


def decode(document: dict[str, Any], signature: model.Signature) -> dict[str, Any]:
    inputs = v1.decode_predict(orjson.dumps(document), signature).call.inputs
    return {name: (tensor.datatype, tensor.array.tolist()) for name, tensor in inputs.items()}


@pytest.mark.parametrize(
    ("values", "datatype"),
    [([[1, 2.5]], "FP64"), ([[1, 2]], "INT64"), ([True], "BOOL"), (["a"], "BYTES"), ([], "FP64")],
)
def test_values_say_their_datatypes(values: Any, datatype: str) -> None:
    ((name, (given, _)),) = decode({"inputs": {"x": values}}, UNKNOWN).items()
    assert (name, given) == ("x", datatype)


def test_fractions_are_what_the_library_makes_of_them() -> None:
    assert decode({"instances": [[0.5]]}, NAMED) == {"x": ("FP32", [[0.5]])}
    assert decode({"instances": [{"y": 0.5}, {"y": 1}]}, UNKNOWN) == {"y": ("FP64", [0.5, 1.0])}


def test_what_an_earlier_request_had_is_no_rule() -> None:
    seen = model.Signature(
        (model.TensorSpec("x", "INT64", (-1,)),), (), has_open_inputs=True, platform="python"
    )
    assert decode({"instances": [0.5]}, seen) == {"x": ("FP64", [0.5])}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"instances": [1]}, "give each by name"),
        ({"inputs": {"x": [1, "a"]}}, "numbers, texts or booleans alone"),
        ({"instances": [{"x": 1}, {"y": 1}]}, "instance 1 has the inputs"),
        ({"inputs": {"x": [[1], [1, 2]]}}, "different lengths"),
    ],
)
def test_what_is_not_clear_is_refused(document: dict[str, Any], reason: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=reason):
        decode(document, UNKNOWN)
