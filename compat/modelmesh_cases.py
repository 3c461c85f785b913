"""ModelMesh: registrations of its sample folders, its documented requests, virtual models."""

from __future__ import annotations

import base64
import json
from typing import Any

import grpc
import numpy as np

from compat import cases, mlserver_cases, world

PEER = "ModelMesh"
INFER = "inference.GRPCInferenceService.ModelInfer"
TRUSTED = json.dumps({"trust": True})
close = mlserver_cases.close


def _mmesh(asked: world.World, method: str, **request: Any) -> Any:
    return asked.reflected.call(f"mmesh.ModelMesh.{method}", request)


def _register(asked: world.World, name: str, type_: str, folder: str, key: str = "") -> None:
    """Register a folder as a runtime's adapter does, load it, and check that it is loaded."""
    info = {"type": type_, "path": str(asked.folder / folder), "key": key}
    _mmesh(asked, "registerModel", modelId=name, modelInfo=info, loadNow=True, sync=True)
    status = _mmesh(asked, "getModelStatus", modelId=name)
    assert status["status"] == "LOADED", status


def _typed(asked: world.World, model: str, tensor: Any, field: str = "fp32_contents") -> Any:
    """Return the answer to a request as ModelMesh's documentation writes it for grpcurl."""
    values = np.ravel(tensor.pop("data")).tolist()
    entry = {**tensor, "contents": {field: values}}
    return asked.reflected.call(INFER, {"model_name": model, "inputs": [entry]})


def _raw_of(answer: Any) -> np.ndarray:
    """Return the first raw output of FP32."""
    return np.frombuffer(base64.b64decode(answer["raw_output_contents"][0]), np.float32)


FOLDERS = {
    "mm-sklearn": ("sklearn", "modelmesh/mnist-svm", TRUSTED, "digits", "digits/predict"),
    "mm-xgboost": (
        "xgboost",
        "modelmesh/xgboost/mushroom",
        "",
        "mushrooms",
        "mushrooms/xgboost",
    ),
    "mm-lightgbm": (
        "lightgbm",
        "modelmesh/lightgbm/mushroom",
        "",
        "mushrooms",
        "mushrooms/lightgbm",
    ),
}
"""By model: type, folder, key, and the facts of its rows and of the right answers."""


@cases.swept(PEER, "sample folders", "docs/example-models.md, fvt/inference.go", FOLDERS)
def models_of_mlserver(asked: world.World, model: str) -> None:
    """Typed contents named `predict` are answered by typed contents."""
    type_, folder, key, rows, right = FOLDERS[model]
    _register(asked, model, type_, folder, key)
    for row, expected in zip(asked.facts[rows], asked.facts[right], strict=True):
        tensor = world.tensor("predict", "FP32", [1, len(row)], row)
        answer = _typed(asked, model, tensor)
        assert "raw_output_contents" not in answer
        (values,) = answer["outputs"][0]["contents"].values()
        close([float(value) for value in values], [expected])


@cases.swept(
    PEER,
    "sample folders",
    "docs/example-models.md: over REST",
    ("mm-xgboost", "mm-sklearn"),
)
def models_of_mlserver_over_rest(asked: world.World, model: str) -> None:
    """The REST proxy's request."""
    *_, rows, right = FOLDERS[model]
    row = asked.facts[rows][0]
    outputs = asked.infer_json(model, world.tensor("predict", "FP32", [1, len(row)], row))
    close(outputs[0]["data"], asked.facts[right][:1])


@cases.swept(PEER, "sample folders", "fvt: mushroom-fil", ("xgboost", "lightgbm"))
def forests_of_triton(asked: world.World, library: str) -> None:
    """Folders of Triton's forest backend, with config.pbtxt and a version."""
    name = f"mm-{library}-fil"
    _register(asked, name, library, f"fil/{library}-fil")
    row = asked.facts["mushrooms"][0]
    answer = _typed(asked, name, world.tensor("input__0", "FP32", [1, len(row)], row))
    (output,) = answer["outputs"]
    assert output["name"] == "output__0"
    assert output["datatype"] == "FP32"
    values = (
        _raw_of(answer).tolist()
        if "raw_output_contents" in answer
        else output["contents"]["fp32_contents"]
    )
    close(values, asked.facts[f"mushrooms/{library}"][:1])


@cases.case(PEER, "sample folders", "fvt: pytorch-cifar")
def torch_of_triton(asked: world.World) -> None:
    """A TorchScript folder with config.pbtxt is answered by raw contents."""
    _register(asked, "mm-pytorch", "pytorch", "triton/libtorch_FP32")
    inputs = [
        {
            "name": f"INPUT__{i}",
            "shape": [1, 16],
            "datatype": "FP32",
            "contents": {"fp32_contents": [float(i + 1)] * 16},
        }
        for i in range(2)
    ]
    answer = asked.reflected.call(INFER, {"model_name": "mm-pytorch", "inputs": inputs})
    assert _raw_of(answer).tolist() == [3.0] * 16


@cases.case(PEER, "sample folders", "fvt: onnx-mnist")
def onnx_of_triton(asked: world.World) -> None:
    """A folder with a single ONNX file."""
    _register(asked, "mm-onnx", "onnx", "modelmesh/onnx-mnist")
    answer = _typed(asked, "mm-onnx", world.tensor("x", "FP32", [1, 4], [1, 2, 3, 4]))
    assert _raw_of(answer).tolist() == [2, 4, 6, 8]


@cases.case(PEER, "sample folders", "docs/predictors: model type as JSON")
def types_in_json(asked: world.World) -> None:
    """The type may be JSON, and the file itself may be the path."""
    _register(asked, "mm-json", '{"name": "onnx"}', "modelmesh/wide/model.onnx")
    answer = _typed(asked, "mm-json", world.tensor("x", "FP32", [1, 4], [1, 2, 3, 4]))
    assert _raw_of(answer).tolist() == [2, 4, 6, 8]


@cases.case(PEER, "requests", "docs/predictors/run-inference.md: mm-model-id, mm-vmodel-id")
def names_in_metadata(asked: world.World) -> None:
    """Metadata of a call may name the model, or a virtual model."""
    _register(asked, "mm-named", "onnx", "modelmesh/onnx-mnist")
    _mmesh(asked, "setVModel", vModelId="mm-virtual", targetModelId="mm-named", sync=True)
    tensor = world.tensor("x", "FP32", [1, 4], None)
    tensor.pop("data")
    entry = {**tensor, "contents": {"fp32_contents": [1.0, 1, 1, 1]}}
    for key, name in (("mm-model-id", "mm-named"), ("mm-vmodel-id", "mm-virtual")):
        answer = asked.reflected.call(INFER, {"inputs": [entry]}, ((key, name),))
        assert _raw_of(answer).tolist() == [2.0] * 4, key
    status = _mmesh(asked, "getVModelStatus", vModelId="mm-virtual")
    assert (status["status"], status["activeModelId"]) == ("DEFINED", "mm-named")
    _mmesh(asked, "deleteVModel", vModelId="mm-virtual")


@cases.case(PEER, "management", "model-mesh.proto")
def a_virtual_model_moves(asked: world.World) -> None:
    """A virtual model moves to its new target once that is loaded, and no request fails."""
    _register(asked, "mm-blue", "onnx", "triton/versions_all/1/model.onnx")
    _mmesh(asked, "setVModel", vModelId="mm-moving", targetModelId="mm-blue", sync=True)
    info = {"type": "onnx", "path": str(asked.folder / "triton/versions_all/2/model.onnx")}
    _mmesh(
        asked,
        "setVModel",
        vModelId="mm-moving",
        targetModelId="mm-green",
        modelInfo=info,
        autoDeleteTargetModel=True,
        sync=True,
    )
    answer = _typed(asked, "mm-moving", world.tensor("x", "FP32", [1, 4], [1, 1, 1, 1]))
    assert _raw_of(answer).tolist() == [2.0] * 4
    _mmesh(asked, "deleteVModel", vModelId="mm-moving")
    assert _mmesh(asked, "getModelStatus", modelId="mm-green").get("status", "NOT_FOUND") == (
        "NOT_FOUND"
    )


@cases.case(PEER, "management", "model-mesh.proto")
def a_life(asked: world.World) -> None:
    """Registered, loaded, removed; a broken model's failure is a status."""
    path = str(asked.folder / "modelmesh/onnx-mnist")
    unknown = _mmesh(asked, "getModelStatus", modelId="mm-life")
    assert unknown.get("status", "NOT_FOUND") == "NOT_FOUND"
    info = {"type": "onnx", "path": path}
    _mmesh(asked, "registerModel", modelId="mm-life", modelInfo=info)
    loaded = _mmesh(asked, "ensureLoaded", modelId="mm-life", sync=True)
    assert loaded["status"] == "LOADED"
    _mmesh(asked, "unregisterModel", modelId="mm-life")
    gone = _mmesh(asked, "getModelStatus", modelId="mm-life")
    assert gone.get("status", "NOT_FOUND") == "NOT_FOUND"
    broken = {"type": "xgboost", "path": path}
    _mmesh(asked, "registerModel", modelId="mm-broken", modelInfo=broken, loadNow=True, sync=True)
    status = _mmesh(asked, "getModelStatus", modelId="mm-broken")
    assert status["status"] == "LOADING_FAILED", status
    assert status["errors"]
    _mmesh(asked, "unregisterModel", modelId="mm-broken")


@cases.case(PEER, "requests", "fvt/predictor: error cases")
def errors(asked: world.World) -> None:
    """Unknown models and wrong inputs have the right codes."""
    _register(asked, "mm-errors", "onnx", "modelmesh/onnx-mnist")
    for model, shape, code in (
        ("mm-nobody", [1, 4], grpc.StatusCode.NOT_FOUND),
        ("mm-errors", [4], grpc.StatusCode.INVALID_ARGUMENT),
        ("mm-errors", [1, 5], grpc.StatusCode.INVALID_ARGUMENT),
    ):
        tensor = world.tensor("x", "FP32", shape, [1.0] * int(np.prod(shape)))
        try:
            _typed(asked, model, tensor)
        except grpc.RpcError as error:
            assert error.code() is code, error
        else:
            raise AssertionError(f"{model} {shape} was answered")


@cases.refusal(PEER, "other runtimes", "fvt: keras, tensorflow, openvino, torchserve")
def other_frameworks(asked: world.World) -> str:
    """Models of Keras, TensorFlow and OpenVINO have no runtime here."""
    path = str(asked.folder / "triton" / "saved_model" / "1" / "model.savedmodel")
    info = {"type": "tensorflow", "path": path}
    _mmesh(asked, "registerModel", modelId="mm-tf", modelInfo=info, loadNow=True, sync=True)
    status = _mmesh(asked, "getModelStatus", modelId="mm-tf")
    _mmesh(asked, "unregisterModel", modelId="mm-tf")
    assert status["status"] == "LOADING_FAILED", status
    return str(status["errors"][0])
