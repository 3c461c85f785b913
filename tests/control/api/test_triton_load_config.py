from __future__ import annotations

from typing import Any

import orjson
import pytest

from meshserve import errors
from meshserve.control.api import triton_load_config
from meshserve.core.values import model

FULL = {
    "name": "m",
    "backend": "onnxruntime",
    "max_batch_size": "8",
    "dynamic_batching": {},
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}],
    "output": [{"name": "y", "data_type": "TYPE_STRING", "dims": []}],
    "default_model_filename": "net.onnx",
    "instance_group": [{"count": 2}],
}
OWN = model.ModelSpec(
    model.ModelId("m"),
    "/m",
    trust=True,
    runtime="torch",
    inputs=(model.TensorSpec("own", "FP32", (1,)),),
    options={"own": 1},
)


def redeclared(keys: dict[str, Any]) -> model.ModelSpec:
    declared = triton_load_config.read(orjson.dumps(keys).decode())
    return triton_load_config.redeclare(OWN, declared)


def test_what_the_configuration_states_takes_the_place_of_the_models_own() -> None:
    spec = redeclared(FULL)
    assert (spec.runtime, spec.batching, spec.max_batch_size) == ("onnx", True, 8)
    assert spec.inputs == (model.TensorSpec("x", "FP32", (-1, 4)),)
    assert spec.outputs == (model.TensorSpec("y", "BYTES", (-1,)),)
    assert spec.options == {"own": 1, "file": "net.onnx"}
    assert (spec.id, spec.uri, spec.trust) == (OWN.id, OWN.uri, True)
    document = orjson.loads(spec.description)
    assert document["labels"] == {}
    assert document["config"]["input"] == FULL["input"]


def test_what_it_does_not_state_stays() -> None:
    spec = redeclared({})
    assert (spec.runtime, spec.inputs, spec.max_batch_size) == ("torch", OWN.inputs, 256)


def test_without_batches_the_dimensions_are_whole() -> None:
    spec = redeclared({"max_batch_size": 0, "input": FULL["input"]})
    assert (spec.inputs[0].shape, spec.batching) == ((4,), False)


@pytest.mark.parametrize("config", [{}, {"dynamic_batching": {}}, {"max_batch_size": 8}])
def test_requests_are_joined_only_if_rows_and_dynamic_batching_are_stated(
    config: dict[str, object],
) -> None:
    assert redeclared(config).batching is False


@pytest.mark.parametrize(
    ("keys", "runtime"),
    [
        ({"platform": "pytorch_libtorch"}, "torch"),
        ({"backend": "python"}, "python"),
        ({"backend": "openvino"}, "openvino"),
        ({"backend": "fil"}, "torch"),
    ],
)
def test_a_backend_names_the_runtime(keys: dict[str, Any], runtime: str) -> None:
    assert redeclared(keys).runtime == runtime


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '"parameters": {"config": {"max_batch_size": "16"}}',
        '{"input": [{}]}',
        '{"input": 3}',
        '{"max_batch_size": "many"}',
        '{"max_batch_size": 1e30}',
        '{"parameters": {"a": 1}}',
        '{"sequence_batching": {}}',
    ],
)
def test_malformed_configurations_are_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="config"):
        triton_load_config.read(text)


def test_a_version_policy_chooses_among_the_versions() -> None:
    specs = [model.ModelSpec(model.ModelId("m", version), "/m") for version in ("1", "9", "10")]

    def chosen(policy: dict[str, Any]) -> list[str]:
        declared = triton_load_config.read(orjson.dumps({"version_policy": policy}).decode())
        return [spec.id.version for spec in triton_load_config.redeclare_all(specs, declared)]

    assert chosen({"latest": {"num_versions": 2}}) == ["9", "10"]
    assert chosen({"specific": {"versions": ["9"]}}) == ["9"]
    assert chosen({"all": {}}) == ["1", "9", "10"]
    with pytest.raises(errors.InvalidRequest, match="none of the versions 1, 9, 10"):
        chosen({"specific": {"versions": [2]}})


def test_versions_that_are_no_numbers_are_all_served() -> None:
    named = [model.ModelSpec(model.ModelId("m", version), "/m") for version in ("v1", "v2")]
    declared = triton_load_config.read("{}")
    assert len(triton_load_config.redeclare_all(named, declared)) == 2


def test_labels_come_as_files_beside_the_versions() -> None:
    outputs = [
        {"name": "a", "data_type": "TYPE_FP32", "dims": [2], "label_filename": "labels.txt"},
        {"name": "b", "data_type": "TYPE_FP32", "dims": [1], "label_filename": "1/b.txt"},
    ]
    declared = triton_load_config.read(orjson.dumps({"output": outputs}).decode())
    files = {"labels.txt": "cat\ndög\n".encode(), "1/b.txt": b"one", "1/model.onnx": b"x"}
    labels = triton_load_config.take_labels(declared, files)
    assert labels == {"a": ["cat", "dög"], "b": ["one"]}
    assert set(files) == {"1/b.txt", "1/model.onnx"}
    spec = triton_load_config.redeclare(OWN, declared, labels)
    assert orjson.loads(spec.description)["labels"] == labels
    for wrong in ({"1/b.txt": b"one"}, {"labels.txt": b"\xff", "1/b.txt": b""}):
        with pytest.raises(errors.InvalidRequest):
            triton_load_config.take_labels(declared, dict(wrong))


def test_a_configuration_alone_keeps_the_labels() -> None:
    labels = {"a": ["cat", "dog"], "b": ["one"]}
    config = {"output": [{"name": "a", "data_type": "TYPE_FP32", "dims": [2]}]}
    declared = triton_load_config.read(orjson.dumps(config).decode())
    uploaded = triton_load_config.redeclare(OWN, declared, labels)
    again = triton_load_config.redeclare(uploaded, triton_load_config.read("{}"))
    assert orjson.loads(again.description)["labels"] == labels
    newer = triton_load_config.redeclare(uploaded, declared, {"a": ["bird", "dog"]})
    assert orjson.loads(newer.description)["labels"] == {"a": ["bird", "dog"], "b": ["one"]}
