from __future__ import annotations

from typing import Any

import orjson
import pytest

from meshserve import config, errors
from meshserve.control.api import triton_load_config

FULL = {
    "name": "m",
    "backend": "onnxruntime",
    "max_batch_size": 8,
    "dynamic_batching": {},
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}],
    "output": [{"name": "y", "data_type": "TYPE_STRING", "dims": []}],
    "parameters": {"threads": {"string_value": "2"}},
    "instance_group": [{"count": 2}],
}


def entry(keys: dict[str, Any]) -> dict[str, Any]:
    return triton_load_config.entry_from(orjson.dumps(keys).decode())


def test_fields_with_a_meaning_here_are_taken_over() -> None:
    assert entry(FULL) == {
        "runtime": "onnx",
        "batching": True,
        "max_batch_size": 8,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
        "options": {"threads": "2"},
    }


def test_an_entry_is_one_of_the_configuration() -> None:
    assert config.parse_model({"name": "m", "uri": "/m", **entry(FULL)}).max_batch_size == 8


def test_without_batches_the_dimensions_are_whole() -> None:
    assert entry({"max_batch_size": 0, "input": FULL["input"]})["inputs"][0]["shape"] == [4]
    assert entry({"max_batch_size": 0})["batching"] is False


@pytest.mark.parametrize("config", [{}, {"dynamic_batching": {}}, {"max_batch_size": 8}])
def test_requests_are_joined_only_if_rows_and_dynamic_batching_are_stated(
    config: dict[str, object],
) -> None:
    assert entry(config)["batching"] is False


@pytest.mark.parametrize(
    ("keys", "runtime"),
    [
        ({"platform": "pytorch_libtorch"}, "torch"),
        ({"backend": "python"}, "python"),
        (
            {"backend": "fil", "parameters": {"model_type": {"string_value": "lightgbm"}}},
            "lightgbm",
        ),
        ({"backend": "openvino"}, None),
        ({}, None),
    ],
)
def test_a_backend_names_the_runtime_if_one_exists(
    keys: dict[str, Any], runtime: str | None
) -> None:
    assert entry(keys).get("runtime") == runtime


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"input": [{}]}',
        '{"input": 3}',
        '{"max_batch_size": "many"}',
        '{"parameters": {"a": 1}}',
    ],
)
def test_malformed_configurations_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="config"):
        triton_load_config.entry_from(text)


def test_the_configuration_is_kept_as_it_came() -> None:
    description = triton_load_config.description_from(orjson.dumps(FULL).decode())
    document = orjson.loads(description)
    assert document["labels"] == {}
    assert document["config"]["input"] == FULL["input"]
    assert document["config"]["parameters"] == FULL["parameters"]
    with pytest.raises(errors.InvalidRequest, match="sequence_batching is not offered"):
        triton_load_config.description_from('{"sequence_batching": {}}')
