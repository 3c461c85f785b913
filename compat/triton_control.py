"""Triton's repository extension, model configuration, statistics and settings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException

from compat import cases, onnx_models, triton_infer, world

PEER = triton_infer.PEER
MODEL_CONTROL = "client/src/python/examples/simple_{http,grpc}_model_control.py"
ROWS = np.ones((1, 4), np.float32)


def json_of(answer: Any) -> Any:
    """Return an answer of Triton's clients as JSON, whichever protocol it came by."""
    if isinstance(answer, (dict, list)):
        return answer
    return json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def index_of(asked: world.World, protocol: str) -> dict[str, dict[str, Any]]:
    """Return the entries of the repository index by model and version."""
    answer = json_of(asked.triton(protocol).get_model_repository_index())
    entries = answer if isinstance(answer, list) else answer["models"]
    return {f"{entry['name']}/{entry.get('version', '')}": entry for entry in entries}


def config_of(asked: world.World, protocol: str, model: str) -> Any:
    """Return a model's configuration as JSON."""
    answer = json_of(asked.triton(protocol).get_model_config(model))
    return answer.get("config", answer)


def refused(call: Any, *arguments: Any, **more: Any) -> str:
    """Return the message of the error that a call of Triton's clients ends with, else ""."""
    try:
        call(*arguments, **more)
    except InferenceServerException as error:
        return str(error.message())
    return ""


@cases.both(PEER, "repository", "docs/protocol/extension_model_repository.md")
def the_index(asked: world.World, protocol: str) -> None:
    """The index has every model with its versions and states."""
    entries = index_of(asked, protocol)
    assert entries["simple/1"]["state"] == "READY"
    assert {"versions_all/1", "versions_all/2", "versions_all/3"} <= entries.keys()


@cases.both(PEER, "repository", MODEL_CONTROL)
def load_and_unload(asked: world.World, protocol: str) -> None:
    """An unloaded model is not ready and not served until it is loaded."""
    client = asked.triton(protocol)
    model, given = "versions_latest", {"x": ROWS}
    client.load_model(model)
    assert client.is_model_ready(model)
    client.unload_model(model)
    try:
        assert not client.is_model_ready(model)
        assert refused(asked.infer, protocol, model, given)
        assert index_of(asked, protocol)[f"{model}/3"]["state"] == "UNAVAILABLE"
    finally:
        client.load_model(model)
    assert client.is_model_ready(model)
    world.same(asked.ask(protocol, model, given), {"y": ROWS * 3})


@cases.both(PEER, "repository", MODEL_CONTROL)
def unknown_models_are_not_loaded(asked: world.World, protocol: str) -> None:
    """A load of an unknown model fails and names it."""
    said = refused(asked.triton(protocol).load_model, "wrong_model_name")
    assert "wrong_model_name" in said, said


@cases.both(PEER, "repository", MODEL_CONTROL)
def a_configuration_in_a_load(asked: world.World, protocol: str) -> None:
    """A load may override the configuration, and a later one without takes the folder's again."""
    client = asked.triton(protocol)
    said = refused(client.load_model, "simple_int8", config='"parameters": {"config": {{"max')
    assert said, "a broken configuration was taken"
    config = config_of(asked, protocol, "simple_int8")
    assert config["max_batch_size"] == 8, config
    client.load_model("simple_int8", config='{"max_batch_size": "16"}')
    try:
        config = config_of(asked, protocol, "simple_int8")
        assert config["max_batch_size"] == 16, config
        rows = {f"INPUT{i}": np.ones((16, 16), np.int8) for i in range(2)}
        assert (asked.ask(protocol, "simple_int8", rows)["OUTPUT0"] == 2).all()
    finally:
        client.load_model("simple_int8", config=json.dumps(config | {"max_batch_size": 8}))


@cases.both(PEER, "repository", "qa/L0_lifecycle: load with files")
def files_in_a_load(asked: world.World, protocol: str) -> None:
    """A model may come with the load itself; a later one replaces it."""
    config = {
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}],
    }
    client, model = asked.triton(protocol), f"uploaded_{protocol}"
    for factor in (5, 7):
        path = asked.folder / f"{model}.onnx"
        onnx_models.scaled(path, factor)
        files = {"file:1/model.onnx": path.read_bytes()}
        client.load_model(model, config=json.dumps(config), files=files)
        world.same(asked.ask(protocol, model, {"x": ROWS}), {"y": ROWS * factor})
    broken = {"file:1/model.onnx": b"no model"}
    assert refused(client.load_model, model, config=json.dumps(config), files=broken)
    world.same(asked.ask(protocol, model, {"x": ROWS}), {"y": ROWS * 7})
    assert refused(client.load_model, model, files=files), "files need a configuration"


@cases.both(PEER, "versions", "docs/user_guide/model_configuration.md: version policy")
def version_policies(asked: world.World, protocol: str) -> None:
    """The newest version answers, or the one that is asked for."""
    for model in ("versions_all", "versions_two", "versions_some"):
        world.same(asked.ask(protocol, model, {"x": ROWS}), {"y": ROWS * 3})
    first = asked.infer(protocol, "versions_some", {"x": ROWS}, model_version="1")
    world.equal(first.as_numpy("y"), ROWS)
    assert refused(asked.infer, protocol, "versions_some", {"x": ROWS}, model_version="2")
    assert refused(asked.infer, protocol, "versions_two", {"x": ROWS}, model_version="1")
    served = json_of(asked.triton(protocol).get_model_metadata("versions_some"))["versions"]
    assert served == ["1", "3"], served


@cases.both(PEER, "model configuration", "docs/protocol/extension_model_configuration.md")
def the_configuration(asked: world.World, protocol: str) -> None:
    """The configuration is the folder's, with dims that leave out the batch."""
    config = config_of(asked, protocol, "simple")
    assert (config["name"], config["backend"]) == ("simple", "onnxruntime")
    assert config["max_batch_size"] == 8
    assert [list(map(int, tensor["dims"])) for tensor in config["input"]] == [[16], [16]]
    assert config["output"][0]["label_filename"] == "labels.txt"
    metadata = json_of(asked.triton(protocol).get_model_metadata("simple"))
    assert [list(map(int, tensor["shape"])) for tensor in metadata["inputs"]] == [[-1, 16]] * 2


@cases.both(PEER, "model configuration", "qa/L0_infer_reshape: what clients are told")
def reshape_in_the_configuration(asked: world.World, protocol: str) -> None:
    """Metadata and configuration have the clients' dims, the configuration `reshape` too."""
    config = config_of(asked, protocol, "reshape_wider")
    assert list(map(int, config["input"][0]["dims"])) == [4, 4]
    assert list(map(int, config["input"][0]["reshape"]["shape"])) == [16]
    metadata = json_of(asked.triton(protocol).get_model_metadata("reshape_wider"))
    assert list(map(int, metadata["inputs"][0]["shape"])) == [-1, 4, 4]


@cases.both(PEER, "statistics", "docs/protocol/extension_statistics.md")
def statistics_add_up(asked: world.World, protocol: str) -> None:
    """Requests, rows and failures are counted."""

    def stats() -> Any:
        client = asked.triton(protocol)
        (entry,) = json_of(client.get_inference_statistics("onnx_FP32_FP32_FP32"))["model_stats"]
        return entry

    rows = {f"INPUT{i}": np.ones((4, 16), np.float32) for i in range(2)}
    asked.ask(protocol, "onnx_FP32_FP32_FP32", rows)
    before = stats()
    asked.ask(protocol, "onnx_FP32_FP32_FP32", rows)
    after = stats()
    assert int(after["inference_count"]) - int(before["inference_count"]) == 4
    assert int(after["execution_count"]) - int(before["execution_count"]) == 1
    counts = [int(entry["inference_stats"]["success"]["count"]) for entry in (before, after)]
    assert counts[1] - counts[0] == 1


@cases.both(PEER, "statistics", "docs/protocol/extension_statistics.md")
def statistics_of_all(asked: world.World, protocol: str) -> None:
    """Without a name the statistics are those of every model."""
    entries = json_of(asked.triton(protocol).get_inference_statistics())["model_stats"]
    assert {"simple", "photos_nchw"} <= {entry["name"] for entry in entries}


@cases.both(PEER, "settings", "docs/protocol/extension_{trace,logging}.md")
def settings_are_shown(asked: world.World, protocol: str) -> None:
    """Trace and log settings can be read."""
    client = asked.triton(protocol)
    assert "OFF" in str(client.get_trace_settings())
    assert "log_error" in str(client.get_log_settings())


@cases.case(PEER, "settings", "docs/protocol/extension_shared_memory.md")
def no_regions(asked: world.World) -> None:
    """Clients that clean up before they begin may do so."""
    for client in (asked.http, asked.grpc):
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
    assert asked.http.get_system_shared_memory_status() == []
    assert not asked.grpc.get_system_shared_memory_status().regions
