from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from meshserve.core.values import model, model_stats
from meshserve.protocol import model_description
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import model_config_pb2 as config_pb
from tests.protocol import drawn

ID = model.ModelId("m", "3")
JOINED = model_description.ServedModel(
    ID, ("2", "3"), drawn.SIGNATURE, "onnx", max_batch_size=8, is_joined=True
)
INPUTS = [
    {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
    {"name": "name", "datatype": "BYTES", "shape": [-1, 1]},
]
OUTPUTS = [
    {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
    {"name": "label", "datatype": "BYTES", "shape": [-1]},
]


def test_metadata_of_what_nobody_declared_says_so() -> None:
    named = model.Signature((model.TensorSpec("x", "", ()),), (), has_open_inputs=True)
    shown = model_description.ServedModel(ID, ("3",), named, "pytorch_libtorch")
    metadata = model_description.metadata_json(shown)
    assert metadata["inputs"] == [{"name": "x", "datatype": "", "shape": []}]
    assert metadata["has_loose_inputs"] is True
    config = model_description.config_json(shown)
    assert [(tensor["name"], tensor["data_type"]) for tensor in config["input"]] == [
        ("x", "TYPE_INVALID")
    ]
    table = model.Signature((model.TensorSpec("x", "FP64", (-1, 2)),), (), table=model.Table())
    rows = model_description.ServedModel(ID, ("3",), table, "sklearn")
    assert model_description.metadata_message(rows).has_loose_inputs


def test_metadata_is_the_signature() -> None:
    expected = {
        "name": "m",
        "versions": ["2", "3"],
        "platform": "onnx",
        "inputs": INPUTS,
        "outputs": OUTPUTS,
    }
    assert model_description.metadata_json(JOINED) == expected
    assert model_description.metadata_message(JOINED) == json_format.ParseDict(
        expected, pb.ModelMetadataResponse()
    )


def test_configuration_leaves_the_batch_out_of_joined_models() -> None:
    config = model_description.config_message(JOINED).config
    assert (config.name, config.platform, config.backend, config.max_batch_size) == (
        "m",
        "onnx",
        "onnx",
        8,
    )
    assert config.HasField("dynamic_batching")
    assert [(entry.name, entry.data_type, list(entry.dims)) for entry in config.input] == [
        ("x", config_pb.TYPE_FP32, [2]),
        ("name", config_pb.TYPE_STRING, [1]),
    ]
    assert [list(entry.dims) for entry in config.output] == [[3], []]


def test_configuration_keeps_every_dimension_of_other_models() -> None:
    config = model_description.config_message(
        model_description.ServedModel(ID, ("3",), drawn.SIGNATURE, "onnx")
    ).config
    assert [list(entry.dims) for entry in config.input] == [[-1, 2], [-1, 1]]
    assert not config.HasField("dynamic_batching")
    assert config.max_batch_size == 0


@pytest.mark.parametrize("datatype", drawn.DATATYPES)
def test_every_datatype_has_a_name_in_the_configuration(datatype: str) -> None:
    config = model_description.config_message(
        model_description.ServedModel(ID, ("3",), drawn.one_input(datatype), "onnx")
    ).config
    assert config.input[0].data_type != config_pb.TYPE_INVALID


def test_configuration_over_rest_has_numbers_and_names() -> None:
    document = model_description.config_json(JOINED)
    assert document["max_batch_size"] == 8
    assert [entry["dims"] for entry in document["input"]] == [[2], [1]]
    assert [entry["data_type"] for entry in document["output"]] == ["TYPE_FP32", "TYPE_STRING"]
    assert (
        json_format.ParseDict(document, config_pb.ModelConfig())
        == model_description.config_message(JOINED).config
    )


def counted() -> model_description.ModelStatistics:
    counts = model_stats.ModelStats()
    counts.record_answer(5, 0.25, 1700000000.5)
    counts.failure.record(0.125)
    counts.queued.record(0.5)
    counts.record_run(5, 0.0625)
    return model_description.ModelStatistics(ID, counts, model.Footprint(7, 9))


def span(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}


NONE = span(0, 0)
STATISTICS: dict[str, Any] = {
    "name": "m",
    "version": "3",
    "last_inference": 1700000000500,
    "inference_count": 5,
    "execution_count": 1,
    "inference_stats": {
        "success": span(1, 250_000_000),
        "fail": span(1, 125_000_000),
        "queue": span(1, 500_000_000),
        "compute_input": NONE,
        "compute_infer": span(1, 62_500_000),
        "compute_output": NONE,
        "cache_hit": NONE,
        "cache_miss": NONE,
    },
    "batch_stats": [
        {
            "batch_size": 5,
            "compute_input": NONE,
            "compute_infer": span(1, 62_500_000),
            "compute_output": NONE,
        }
    ],
    "memory_usage": [
        {"type": "CPU", "id": 0, "byte_size": 7},
        {"type": "GPU", "id": 0, "byte_size": 9},
    ],
    "response_stats": {},
}


def test_statistics_are_what_was_counted_and_the_memory() -> None:
    assert model_description.statistics_json([counted()]) == {"model_stats": [STATISTICS]}
    expected = json_format.ParseDict({"model_stats": [STATISTICS]}, pb.ModelStatisticsResponse())
    assert model_description.statistics_message([counted()]) == expected


def test_an_unused_model_has_memory_and_zeros() -> None:
    document = model_description.statistics_json(
        [model_description.ModelStatistics(ID, model_stats.ModelStats(), model.Footprint())]
    )["model_stats"][0]
    assert document["inference_stats"] == dict.fromkeys(STATISTICS["inference_stats"], NONE)
    assert document["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 0}]
    assert document["batch_stats"] == []


def test_the_index_has_every_version_and_its_state() -> None:
    index = [
        model_description.IndexEntry(ID, "READY"),
        model_description.IndexEntry(model.ModelId("n"), "UNAVAILABLE", "no such file"),
    ]
    document = model_description.index_json(iter(index))
    assert document == [
        {"name": "m", "version": "3", "state": "READY", "reason": ""},
        {"name": "n", "version": "1", "state": "UNAVAILABLE", "reason": "no such file"},
    ]
    assert model_description.index_message(index) == json_format.ParseDict(
        {"models": document}, pb.RepositoryIndexResponse()
    )


def test_any_message_is_plain() -> None:
    settings = pb.LogSettingsResponse()
    settings.settings["log_info"].bool_param = False
    assert model_description.to_json(settings) == {"settings": {"log_info": {"bool_param": False}}}
    assert model_description.to_json(pb.ModelStreamInferResponse(error_message="no")) == {
        "error_message": "no"
    }


def test_the_owners_configuration_is_shown_and_completed() -> None:
    written = {
        "platform": "onnxruntime_onnx",
        "max_batch_size": 8,
        "input": [
            {
                "name": "x",
                "data_type": "TYPE_FP32",
                "format": "FORMAT_NCHW",
                "dims": ["3", "4", "4"],
            }
        ],
        "parameters": {"a": {"string_value": "b"}},
        "version_policy": {"all": {}},
    }
    served = model_description.ServedModel(
        ID, ("3",), drawn.SIGNATURE, "onnxruntime_onnx", config=json.dumps(written)
    )
    shown = model_description.config_json(served)
    assert (shown["name"], shown["backend"], shown["max_batch_size"]) == ("m", "onnxruntime", 8)
    assert (shown["input"][0]["format"], shown["input"][0]["dims"]) == ("FORMAT_NCHW", [3, 4, 4])
    assert [entry["dims"] for entry in shown["output"]] == [[3], []]
    assert shown["parameters"] == {"a": {"string_value": "b"}}
    assert "all" in shown["version_policy"]
    assert "dynamic_batching" not in shown


@pytest.mark.parametrize(
    ("platform", "shown"),
    [
        ("onnxruntime_onnx", ("onnxruntime_onnx", "onnxruntime")),
        ("pytorch_libtorch", ("pytorch_libtorch", "pytorch")),
        ("python", ("", "python")),
        ("sklearn", ("sklearn", "sklearn")),
    ],
)
def test_backend_and_platform_are_named_as_triton_names_them(
    platform: str, shown: tuple[str, str]
) -> None:
    served = model_description.ServedModel(ID, ("3",), drawn.SIGNATURE, platform)
    config = model_description.config_message(served).config
    assert (config.platform, config.backend) == shown
