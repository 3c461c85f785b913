"""ModelMesh's management API and headers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from meshserve.protocol.pb import modelmesh_pb2 as mm
from meshserve.protocol.pb import modelmesh_pb2_grpc as mm_rpc
from tests import support
from tests.e2e import running, zoo

pytestmark = pytest.mark.edge

Status, VStatus = mm.ModelStatusInfo, mm.VModelStatusInfo


@pytest.fixture
def management(channel: grpc.Channel) -> Any:
    return mm_rpc.ModelMeshStub(channel)


@pytest.fixture
def predict(channel: grpc.Channel) -> Callable[..., float]:
    """Return the first number of a linear model's answer; metadata may name the model."""

    def ask(name: str = "", metadata: Any = ()) -> float:
        tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
        request = pb.ModelInferRequest(
            model_name=name, inputs=[tensor], raw_input_contents=[np.ones(4, np.float32).tobytes()]
        )
        answer = rpc.GRPCInferenceServiceStub(channel).ModelInfer(
            request, metadata=metadata, timeout=30
        )
        return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])

    return ask


@pytest.fixture
def onnx_model(tmp_path: Path) -> Callable[[float], mm.ModelInfo]:
    """A function that returns the ModelInfo of an ONNX model: its answer to ones is 4 × factor."""

    def make(factor: float) -> mm.ModelInfo:
        path = tmp_path / f"{factor}.onnx"
        zoo.write_onnx(path, factor)
        return mm.ModelInfo(type="rt:onnx" if factor == 1 else "onnx", path=str(path))

    return make


def code_of(call: Any, request: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value.code()


def test_a_model_is_registered_loaded_and_removed(
    management: Any, predict: Callable[..., float], onnx_model: Callable[[float], mm.ModelInfo]
) -> None:
    about = onnx_model(3)
    assert management.getModelStatus(mm.GetStatusRequest(modelId="life")).status == Status.NOT_FOUND
    registered = management.registerModel(mm.RegisterModelRequest(modelId="life", modelInfo=about))
    assert registered.status == Status.NOT_LOADED
    loaded = management.ensureLoaded(mm.EnsureLoadedRequest(modelId="life", sync=True))
    assert loaded.status == Status.LOADED
    assert [copy.copyStatus for copy in loaded.modelCopyInfos] == [Status.LOADED]
    assert management.getModelStatus(mm.GetStatusRequest(modelId="life")).status == Status.LOADED
    assert predict("life") == 12
    management.unregisterModel(mm.UnregisterModelRequest(modelId="life"))
    assert management.getModelStatus(mm.GetStatusRequest(modelId="life")).status == Status.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        predict("life")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    management.unregisterModel(mm.UnregisterModelRequest(modelId="life"))


def test_registering_may_load_at_once(
    management: Any, onnx_model: Callable[[float], mm.ModelInfo]
) -> None:
    about = onnx_model(5)
    status = management.registerModel(
        mm.RegisterModelRequest(modelId="at-once", modelInfo=about, loadNow=True, sync=True)
    )
    assert status.status == Status.LOADED
    again = management.registerModel(mm.RegisterModelRequest(modelId="at-once", modelInfo=about))
    assert again.status == Status.LOADED
    assert (
        code_of(
            management.registerModel,
            mm.RegisterModelRequest(modelId="at-once", modelInfo=onnx_model(6)),
        )
        is grpc.StatusCode.ALREADY_EXISTS
    )
    management.unregisterModel(mm.UnregisterModelRequest(modelId="at-once"))


def test_a_load_that_fails_is_a_status_with_its_reason(management: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    about = mm.ModelInfo(type=json.dumps({"name": "onnx"}), path=str(tmp_path / "bad.onnx"))
    status = management.registerModel(
        mm.RegisterModelRequest(modelId="bad", modelInfo=about, loadNow=True, sync=True)
    )
    assert status.status == Status.LOADING_FAILED
    assert "onnx" in "".join(status.errors)
    management.unregisterModel(mm.UnregisterModelRequest(modelId="bad"))


def test_malformed_calls_are_refused(
    management: Any, onnx_model: Callable[[float], mm.ModelInfo]
) -> None:
    assert (
        code_of(management.registerModel, mm.RegisterModelRequest())
        is grpc.StatusCode.INVALID_ARGUMENT
    )
    assert (
        code_of(management.ensureLoaded, mm.EnsureLoadedRequest(modelId="nobody"))
        is grpc.StatusCode.NOT_FOUND
    )
    wrong = mm.RegisterModelRequest(
        modelId="wrong", modelInfo=mm.ModelInfo(type="no-such-runtime", path=onnx_model(2).path)
    )
    management.registerModel(wrong)
    assert (
        management.ensureLoaded(mm.EnsureLoadedRequest(modelId="wrong", sync=True)).status
        == Status.LOADING_FAILED
    )
    management.unregisterModel(mm.UnregisterModelRequest(modelId="wrong"))


def test_a_vmodel_moves_once_its_target_answers(
    management: Any,
    predict: Callable[..., float],
    onnx_model: Callable[[float], mm.ModelInfo],
    tmp_path: Path,
) -> None:
    first = mm.SetVModelRequest(
        vModelId="virtual",
        targetModelId="virtual-1",
        modelInfo=onnx_model(11),
        autoDeleteTargetModel=True,
        sync=True,
    )
    assert management.setVModel(first).status == VStatus.DEFINED
    assert predict("virtual") == 44
    moved = mm.SetVModelRequest(
        vModelId="virtual",
        targetModelId="virtual-2",
        modelInfo=onnx_model(12),
        autoDeleteTargetModel=True,
        sync=True,
    )
    reply = management.setVModel(moved)
    assert (reply.status, reply.activeModelId) == (VStatus.DEFINED, "virtual-2")
    assert predict("virtual") == 48
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    bad = mm.ModelInfo(type="onnx", path=str(tmp_path / "bad.onnx"))
    failed = management.setVModel(
        mm.SetVModelRequest(vModelId="virtual", targetModelId="virtual-3", modelInfo=bad, sync=True)
    )
    assert (failed.status, failed.activeModelId, failed.targetModelId) == (
        VStatus.TRANSITION_FAILED,
        "virtual-2",
        "virtual-3",
    )
    assert failed.targetModelStatus.status == Status.LOADING_FAILED
    assert predict("virtual") == 48
    management.deleteVModel(mm.DeleteVModelRequest(vModelId="virtual"))
    assert (
        management.getVModelStatus(mm.GetVModelStatusRequest(vModelId="virtual")).status
        == VStatus.NOT_FOUND
    )
    support.wait_until(
        lambda: not_found(management, "virtual-2"),
        support.WAIT_S,
        "the target that was made for the vmodel is gone",
    )
    management.unregisterModel(mm.UnregisterModelRequest(modelId="virtual-3"))


def not_found(management: Any, name: str) -> Any:
    return management.getModelStatus(mm.GetStatusRequest(modelId=name)).status == Status.NOT_FOUND


def test_expected_targets_and_owners_are_checked(
    management: Any, predict: Callable[..., float]
) -> None:
    mine = mm.SetVModelRequest(vModelId="mine", targetModelId="linear", owner="me")
    assert management.setVModel(mine).owner == "me"
    theirs = mm.SetVModelRequest(vModelId="mine", targetModelId="small", owner="you")
    assert code_of(management.setVModel, theirs) is grpc.StatusCode.ALREADY_EXISTS
    stale = mm.SetVModelRequest(
        vModelId="mine", targetModelId="small", owner="me", expectedTargetModelId="doubled"
    )
    assert code_of(management.setVModel, stale) is grpc.StatusCode.FAILED_PRECONDITION
    unknown = mm.SetVModelRequest(vModelId="unset", targetModelId="small", updateOnly=True)
    assert code_of(management.setVModel, unknown) is grpc.StatusCode.NOT_FOUND
    assert predict("mine") == 40
    management.deleteVModel(mm.DeleteVModelRequest(vModelId="mine", owner="me"))


@pytest.mark.parametrize("key", ["mm-model-id", "mm-vmodel-id"])
def test_metadata_names_the_model(predict: Callable[..., float], key: str) -> None:
    name = "stable" if key == "mm-vmodel-id" else "small"
    expected = {"stable": 40, "small": 28}[name]
    assert predict("", [(key, name)]) == expected
    assert predict("doubled", [(key, name)]) == expected
    assert predict("nobody", [(f"{key}-bin", name.encode())]) == expected


def test_metadata_names_the_model_for_other_calls_too(channel: grpc.Channel) -> None:
    stub = rpc.GRPCInferenceServiceStub(channel)
    assert (
        stub.ModelMetadata(
            pb.ModelMetadataRequest(), metadata=[("mm-model-id", "boosted")]
        ).platform
        == "xgboost"
    )
    assert stub.ModelReady(pb.ModelReadyRequest(), metadata=[("mm-vmodel-id", "stable")]).ready


def test_internal_headers_of_clients_are_dropped(
    mesh: running.Mesh, predict: Callable[..., float]
) -> None:
    assert predict("small", [("x-mesh-model", "linear"), ("x-mesh-client", "root")]) == 28
    encoded = base64.b64encode(b"linear").decode()
    answer = mesh.http.get(
        "/v2/models/small", headers={"x-mesh-model": "linear", "mm-model-id-bin": encoded}
    ).raise_for_status()
    assert answer.json()["name"] == "small"
    assert not [name for name in answer.headers if name.startswith("x-mesh")]
