"""KServe: its SDK, and the requests of its e2e tests and documentation."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from compat import cases, mlserver_cases, world

PEER = "KServe"
NEEDS = "kserve"
MODELS = ("sklearn-iris", "xgboost-iris", "lightgbm-iris")
close = mlserver_cases.close


def _right(asked: world.World, model: str) -> Any:
    return asked.facts[f"iris/{model.removesuffix('-iris')}"]


def _tensor(asked: world.World) -> Any:
    return world.tensor("input-0", "FP32", [2, 4], asked.facts["iris"])


@cases.swept(PEER, "V1 requests", "test/e2e/data/iris_input.json", MODELS)
def instances(asked: world.World, model: str) -> None:
    """Rows in, a prediction for each out: labels of a classifier."""
    answer = asked.post(f"/v1/models/{model}:predict", {"instances": asked.facts["iris"]})
    close(answer["predictions"], _right(asked, model))
    if model == MODELS[0]:
        assert answer == {"predictions": _right(asked, model)}


@cases.swept(PEER, "V2 requests", "test/e2e/data/iris_input_v2.json", MODELS)
def nested_rows(asked: world.World, model: str) -> None:
    """A nested matrix named input-0."""
    outputs = asked.infer_json(model, _tensor(asked))
    close(outputs[0]["data"], np.ravel(_right(asked, model)))


@cases.case(PEER, "V1 requests", "test/e2e/data/iris_input_v3.json")
def a_frame_of_columns(asked: world.World) -> None:
    """LightGBM's server takes frames whose columns are in another order than the model's."""
    columns = ["sepal_length_(cm)", "sepal_width_(cm)", "petal_length_(cm)", "petal_width_(cm)"]
    row = dict(zip(columns, ([5.1], [3.5], [1.4], [0.2]), strict=True))
    answer = asked.post("/v1/models/lightgbm-frame:predict", {"inputs": [row]})
    close(answer["predictions"], asked.facts["iris/frame"])


@cases.refusal(PEER, "rows in pieces", "test/e2e/data/iris_input_v4.json")
def a_row_of_several_objects(asked: world.World) -> str:
    """Columns of one row in objects of their own: KServe makes a row of each, with NaN for others.

    That is hardly what was meant, so it is refused.
    """
    row = [{"sepal_length_(cm)": 5.1}, {"sepal_width_(cm)": 3.5}]
    answer = asked.rest.post("/v1/models/lightgbm-frame:predict", json={"inputs": [row]})
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"])


@cases.case(PEER, "V2 requests", "test/e2e/data/sklearn_mixed_v2.json")
def columns_of_texts_and_numbers(asked: world.World) -> None:
    """One input for each column of a pipeline's data frame."""
    inputs = []
    for name, value in asked.facts["houses"].items():
        datatype = "BYTES" if isinstance(value, str) else "INT32"
        inputs.append(world.tensor(name, datatype, [1], [value]))
    outputs = asked.infer_json("mixed", *inputs, parameters={"content_type": "pd"})
    assert outputs[0]["data"] == asked.facts["houses/predict"]


@cases.case(PEER, "V1 requests", "test/e2e/data/sklearn_mixed.json")
def rows_of_texts_and_numbers(asked: world.World) -> None:
    """The same as V1's instances."""
    answer = asked.post("/v1/models/mixed:predict", {"instances": [asked.facts["houses"]]})
    assert answer == {"predictions": asked.facts["houses/predict"]}


@cases.case(PEER, "V2 requests", "test/e2e/data/iris_input_v2_all_binary.json")
def binary_outputs(asked: world.World) -> None:
    """Outputs are binary if the request asks for it."""
    body = {"inputs": [_tensor(asked)], "parameters": {"binary_data_output": True}}
    answer = asked.rest.post("/v2/models/sklearn-iris/infer", json=body)
    size = int(answer.headers["Inference-Header-Content-Length"])
    labels = np.frombuffer(answer.content[size : size + 16], np.int64)
    assert labels.tolist() == _right(asked, MODELS[0])


@cases.swept(PEER, "health", "docs: data plane V1 and V2", ("v1", "v2"))
def paths_of_health(asked: world.World, protocol: str) -> None:
    """The documented paths of health and readiness, with a slash at the end too."""
    if protocol == "v1":
        assert asked.get("/") == {"status": "alive"}
        assert "sklearn-iris" in asked.get("/v1/models")["models"]
        status = asked.get("/v1/models/sklearn-iris")
        assert (status["name"], status["ready"]) == ("sklearn-iris", True)
        return
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/sklearn-iris/ready"):
        for slash in ("", "/"):
            assert asked.rest.get(path + slash).status_code == 200, path + slash
    assert asked.get("/v2/")["name"]


@cases.case(PEER, "SDK, REST", "python/kserve InferenceRESTClient, V1", NEEDS)
def rest_v1(asked: world.World) -> None:
    """The SDK's V1."""
    for model in MODELS:
        body = {"instances": asked.facts["iris"]}
        answer = asked.peer(NEEDS, "body", protocol="v1", model=model, body=body)
        close(answer["predictions"], _right(asked, model))


@cases.case(PEER, "SDK, REST", "python/kserve InferenceRESTClient, V2 by a dict", NEEDS)
def rest_v2_of_a_dict(asked: world.World) -> None:
    """The SDK's V2 with a body that was written by hand."""
    for model in MODELS:
        body = {"inputs": [_tensor(asked)]}
        answer = asked.peer(NEEDS, "body", protocol="v2", model=model, body=body)
        close(answer["outputs"][0][3], np.ravel(_right(asked, model)))


@cases.case(PEER, "SDK, REST", "python/kserve InferRequest", NEEDS)
def rest_v2_of_tensors(asked: world.World) -> None:
    """The SDK's own tensors, as JSON and binary; outputs by name."""
    given = [["input-0", "FP32", [2, 4], asked.facts["iris"]]]
    for model in MODELS:
        for is_binary in (False, True):
            answer = asked.peer(
                NEEDS,
                "infer",
                model=model,
                inputs=given,
                is_binary=is_binary,
                outputs=["predict"],
            )
            close(answer["outputs"][0][3], np.ravel(_right(asked, model)))
            assert answer["id"] == "7"


@cases.case(PEER, "SDK, gRPC", "python/kserve InferenceGRPCClient", NEEDS)
def grpc_v2(asked: world.World) -> None:
    """The SDK's gRPC client, with typed and raw contents."""
    given = [["input-0", "FP32", [2, 4], asked.facts["iris"]]]
    for model in MODELS:
        for is_binary in (False, True):
            answer = asked.peer(
                NEEDS, "infer", model=model, inputs=given, is_binary=is_binary, over="grpc"
            )
            close(answer["outputs"][0][3], np.ravel(_right(asked, model)))


@cases.case(PEER, "SDK, gRPC", "test/e2e/predictor/test_grpc.py", NEEDS)
def grpc_texts(asked: world.World) -> None:
    """Texts over the SDK."""
    given = [["INPUT0", "BYTES", [1, 2], ["a", "Größe"]]]
    for over in ("rest", "grpc"):
        answer = asked.peer(NEEDS, "infer", model="simple_identity", inputs=given, over=over)
        assert answer["outputs"][0][3] == ["a", "Größe"]


@cases.case(PEER, "SDK, REST", "python/kserve: health", NEEDS)
def sdk_health(asked: world.World) -> None:
    """The SDK's questions for health over every protocol."""
    for protocol in ("v1", "v2", "grpc"):
        answer = asked.peer(NEEDS, "health", protocol=protocol, model="sklearn-iris")
        assert answer == [True, True, True], f"{protocol}: {answer}"


@cases.case(PEER, "V1 requests", "docs: binary values")
def base64_values(asked: world.World) -> None:
    """Bytes in V1 are {"b64": …}, in both alphabets."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        value = {"b64": encode(b"\xfb\xff\xfe some bytes").decode()}
        answer = asked.post("/v1/models/simple_identity:predict", {"instances": [[value]]})
        (back,) = answer["predictions"][0]
        assert base64.b64decode(back["b64"]) == b"\xfb\xff\xfe some bytes"


@cases.case(PEER, "V1 requests", "docs: errors")
def errors_of_v1(asked: world.World) -> None:
    """Unknown models, bad bodies and unknown verbs have their status."""
    for path, body, status in (
        ("/v1/models/nobody:predict", {"instances": [[1]]}, 404),
        ("/v1/models/sklearn-iris:predict", {"rows": []}, 400),
        ("/v1/models/sklearn-iris:predict", {"instances": [[1, 2, 3]]}, 400),
        ("/v1/models/sklearn-iris:explain", {"instances": [[1, 2, 3, 4]]}, 501),
    ):
        answer = asked.rest.post(path, json=body)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        assert answer.json()["error"]
