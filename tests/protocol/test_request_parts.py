from __future__ import annotations

from typing import Any

import orjson
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import request_parts, rest, v1

MANY = request_parts.PARTS_MAX + 1
PADDING = "x" * request_parts.BIG_BYTES_MIN
SIGNATURE = model.Signature((model.TensorSpec("x", "FP32", (-1,)),), ())


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [1], "data": [1], **fields}


def names(count: int) -> list[str]:
    return [f"name-{number:06}" for number in range(count)]


TOO_MANY: dict[str, dict[str, Any]] = {
    "inputs": {"inputs": [entry(name) for name in names(MANY)]},
    "outputs": {"inputs": [entry("x")], "outputs": [{"name": name} for name in names(MANY)]},
    "parameters": {"inputs": [entry("x")], "parameters": dict.fromkeys(names(MANY), 1)},
    "nested": {"inputs": [entry("x")], "parameters": {"a": [{"b": names(MANY)}]}},
    "an input's": {"inputs": [entry("x", parameters=dict.fromkeys(names(MANY), "v"))]},
    "an output's": {
        "inputs": [entry("x")],
        "outputs": [{"name": "y", "parameters": {"a": names(MANY)}}],
    },
}


@pytest.mark.parametrize("kind", TOO_MANY)
def test_more_parts_than_can_be_passed_on_at_once_are_refused(kind: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=f"has at most {MANY - 1} "):
        rest.decode_infer(orjson.dumps({"id": PADDING, **TOO_MANY[kind]}), ())


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_too_many_inputs_of_v1_are_refused(form: str) -> None:
    row = dict.fromkeys(names(MANY), 1)
    body = orjson.dumps({form: [row] if form == "instances" else row})
    with pytest.raises(errors.InvalidRequest, match=f"at most {MANY - 1} inputs, {MANY} came"):
        v1.decode_predict(body, SIGNATURE)


def test_as_many_as_that_and_any_number_of_values_are_taken() -> None:
    inputs = [entry(name) for name in names(MANY - 1)]
    assert len(rest.decode_infer(orjson.dumps({"inputs": inputs}), ()).call.inputs) == MANY - 1
    many = entry("x", shape=[3 * MANY], data=[1] * 3 * MANY)
    said = {"parameters": {"a": PADDING}, "inputs": [many]}
    assert rest.decode_infer(orjson.dumps(said), ()).call.inputs["x"].array.size == 3 * MANY
    rows = orjson.dumps({"instances": [1.5] * 3 * MANY, "ignored": PADDING})
    assert v1.decode_predict(rows, SIGNATURE).rows == 3 * MANY
