"""Loading and unloading by Triton's and MLServer's gRPC services and by REST."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from meshserve.protocol.pb import model_repository_pb2_grpc as mlserver
from tests.e2e import asking, running, zoo

pytestmark = pytest.mark.edge

CONFIG = {"backend": "onnxruntime", "max_batch_size": 8, "dynamic_batching": {}}


def answer_of(client: Any, name: str, version: str = "") -> Any:
    rows = np.ones((1, 4), np.float32)
    return client.infer(name, [asking.over_grpc("x", rows, "FP32")], version).as_numpy("y")[0, 0]


@pytest.fixture
def onnx_bytes(tmp_path: Path) -> Callable[[float], bytes]:
    def make(factor: float) -> bytes:
        zoo.write_onnx(tmp_path / "made.onnx", factor)
        return (tmp_path / "made.onnx").read_bytes()

    return make


def test_a_model_is_loaded_and_unloaded(mesh: Any, over_grpc: Any, over_http: Any) -> None:
    inputs = [asking.over_grpc("input", np.zeros((1, 4), np.float32), "FP32")]
    for client in (over_grpc, over_http):
        client.load_model("boosted")
        assert mesh.model("boosted")["state"] == "ready"
        client.unload_model("boosted")
        assert mesh.model("boosted")["state"] == "absent"
        assert not client.is_model_ready("boosted")
        with pytest.raises(InferenceServerException, match="is unloaded: load it first"):
            over_grpc.infer("boosted", inputs)
    over_grpc.load_model("boosted")
    over_grpc.infer("boosted", inputs)


@pytest.mark.parametrize("over", ["over_grpc", "over_http"])
def test_a_model_may_come_with_the_request(
    over: str,
    request: pytest.FixtureRequest,
    over_grpc: tritonclient.grpc.InferenceServerClient,
    mesh: running.Mesh,
    onnx_bytes: Callable[[float], bytes],
) -> None:
    client, name = request.getfixturevalue(over), f"sent-{over[-4:]}"
    files = {"file:1/model.onnx": onnx_bytes(21), "file:3/model.onnx": onnx_bytes(23)}
    client.load_model(name, config=json.dumps(CONFIG), files=files)
    assert answer_of(over_grpc, name, "1") == 84
    assert answer_of(over_grpc, name, "3") == answer_of(over_grpc, name) == 92
    assert over_grpc.get_model_config(name).config.max_batch_size == 8
    client.load_model(name, config=json.dumps({**CONFIG, "max_batch_size": 0}))
    assert over_grpc.get_model_config(name).config.max_batch_size == 0
    mesh.http.delete(f"/mesh/v1/models/{name}").raise_for_status()


@pytest.mark.parametrize(
    ("config", "files", "words"),
    [
        ("{", None, "`config` is not JSON"),
        ("[]", None, "must be a JSON object"),
        ('{"max_batch_size": "many"}', None, "is not a model configuration"),
        (
            "{}",
            {"file:../../etc/model.onnx": b""},
            "must be named as <version>/<path inside the model>",
        ),
        ("{}", {"file:model.onnx": b""}, "must be named as <version>/<path inside the model>"),
    ],
)
def test_bad_parameters_are_explained(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    config: Any,
    files: Any,
    words: str,
) -> None:
    for client, code in ((over_grpc, "StatusCode.INVALID_ARGUMENT"), (over_http, "400")):
        with pytest.raises(InferenceServerException) as caught:
            client.load_model("linear", config=config, files=files)
        assert words in caught.value.message()
        assert caught.value.status() == code


def test_files_need_a_config(mesh: running.Mesh, channel: grpc.Channel) -> None:
    files = {"file:1/model.onnx": pb.ModelRepositoryParameter(bytes_param=b"x")}
    with pytest.raises(grpc.RpcError, match="need a `config`"):
        rpc.GRPCInferenceServiceStub(channel).RepositoryModelLoad(
            pb.RepositoryModelLoadRequest(model_name="linear", parameters=files)
        )
    for parameters, words in (
        ({"file:1/m": base64.b64encode(b"x").decode()}, "need a `config`"),
        ({"file:1/m": "!"}, "is not base64"),
    ):
        answer = mesh.http.post(
            "/v2/repository/models/linear/load", json={"parameters": parameters}
        )
        assert answer.status_code == 400
        assert words in answer.json()["error"]


def test_unknown_models_are_not_found(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    for call, client, code in (
        ("load_model", over_grpc, "NOT_FOUND"),
        ("unload_model", over_http, "404"),
    ):
        with pytest.raises(InferenceServerException, match="nobody") as caught:
            getattr(client, call)("nobody")
        assert code in caught.value.status()


def test_a_failed_load_has_its_reason(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    for client, code in ((over_grpc, "StatusCode.FAILED_PRECONDITION"), (over_http, "424")):
        with pytest.raises(InferenceServerException, match="onnx") as caught:
            client.load_model("corrupt")
        assert caught.value.status() == code


def test_kserve_clients_name_the_model_in_the_first_field(
    channel: grpc.Channel, mesh: running.Mesh
) -> None:
    stub = rpc.GRPCInferenceServiceStub(channel)
    assert stub.RepositoryModelLoad(
        pb.RepositoryModelLoadRequest(repository_name="forest")
    ).isLoaded
    assert mesh.model("forest")["state"] == "ready"
    reply = stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(repository_name="forest"))
    assert (reply.model_name, reply.isUnloaded) == ("forest", True)
    assert mesh.model("forest")["state"] == "absent"


def test_mlservers_service_answers(channel: grpc.Channel, mesh: running.Mesh) -> None:
    stub = mlserver.ModelRepositoryServiceStub(channel)
    stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="forest"))
    index = {
        (entry.name, entry.version): entry.state
        for entry in stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    }
    assert index["forest", "1"] == "READY"
    stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="forest"))
    assert mesh.model("forest")["state"] == "absent"


def test_the_index_may_be_limited_to_ready_models(
    channel: grpc.Channel, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    with pytest.raises(InferenceServerException):
        over_grpc.get_model_metadata("corrupt")
    stub = rpc.GRPCInferenceServiceStub(channel)

    def listed() -> Any:
        return {
            entry.name
            for entry in stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models
        }

    assert "doubled" in listed()
    everything = {
        entry.name: entry for entry in stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    }
    assert "corrupt" in everything
