from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import numpy as np
import pytest

from meshserve.core.values import catalog, model
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.worker import worker
from tests.runtimes import mlserver_models
from tests.worker import helpers

ROW = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


@pytest.fixture
def slashed(pool_worker: worker.PoolWorker, storage: helpers.FakeStorage) -> str:
    """The same model under a name that must be quoted."""
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("a/b größe", storage.put("doubled"))))
    return "a%2Fb%20gr%C3%B6%C3%9Fe"


async def test_v2_answers(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v2/models/doubled/infer", json={"id": "7", "inputs": [ROW]})
    assert answer.json()["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}
    ]
    assert (answer.json()["model_version"], answer.json()["id"]) == ("1", "7")
    same = await http.post("/v2/models/doubled/versions/1/infer", json={"inputs": [ROW]})
    assert same.json()["outputs"] == answer.json()["outputs"]


async def test_v2_describes_the_model(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v2/models/doubled")).json()["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    ]
    assert (await http.get("/v2/models/doubled/config")).json()["max_batch_size"] == 256
    assert (await http.get("/v2/models/doubled/ready")).json() == {"name": "doubled", "ready": True}
    [stats] = (await http.get("/v2/models/doubled/versions/1/stats")).json()["model_stats"]
    assert stats["version"] == "1"


async def test_v1_answers(http: httpx.AsyncClient) -> None:
    for path in ("/v1/models/doubled", "/v1/models/doubled/versions/1"):
        assert (await http.post(f"{path}:predict", json={"instances": [[1, 2]]})).json() == {
            "predictions": [[2.0, 4.0]]
        }
        status = (await http.get(path)).json()
        assert (status["name"], status["ready"]) == ("doubled", True)
    assert (
        await http.post("/v1/models/doubled/versions/2:predict", json={"instances": [[1, 2]]})
    ).status_code == 404


@pytest.mark.parametrize(
    "path", ["doubled:predict/", "doubled/versions/1:predict/", "doubled%3Apredict"]
)
async def test_v1_predicts_whatever_the_spelling_of_its_path(
    http: httpx.AsyncClient, path: str
) -> None:
    answer = await http.post(f"/v1/models/{path}", json={"instances": [[1, 2]]})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [[2.0, 4.0]]})


async def test_v1_tells_the_status_as_tensorflow_serving_does(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker, storage: helpers.FakeStorage
) -> None:
    second = helpers.spec("doubled", str(storage.folder / "empty"), "2")
    helpers.apply(pool_worker, *helpers.declared(second))
    assert (await http.get("/v2/models/doubled/versions/2")).status_code == 424
    answer = await http.get("/v1/models/doubled")
    # Without a version the first one answers.
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    assert (await http.get("/v1/models/doubled/versions/2")).status_code == 424
    states = answer.json()["model_version_status"]
    assert [(entry["version"], entry["state"]) for entry in states] == [
        ("1", "AVAILABLE"),
        ("2", "END"),
    ]
    first = await http.get("/v1/models/doubled/versions/1")
    assert (first.status_code, first.json()["model_version_status"]) == (200, states[:1])
    assert states[0]["status"] == {"error_code": "OK", "error_message": ""}


async def test_v1_tells_the_metadata_as_tensorflow_serving_does(http: httpx.AsyncClient) -> None:
    for path in ("doubled/metadata", "doubled/versions/1/metadata"):
        metadata = (await http.get(f"/v1/models/{path}")).json()
        assert metadata["model_spec"] == {"name": "doubled", "signature_name": "", "version": "1"}
        signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["inputs"]["x"] == {
            "name": "x",
            "dtype": "DT_FLOAT",
            "tensor_shape": {
                "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
                "unknown_rank": False,
            },
        }


async def test_v1s_labels_are_aliases_of_the_model(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker
) -> None:
    helpers.apply(pool_worker, catalog.AliasSet("stable", "doubled", "1"))
    body = {"instances": [[1, 2]]}
    answer = await http.post("/v1/models/doubled/labels/stable:predict", json=body)
    assert answer.json() == {"predictions": [[2.0, 4.0]]}
    assert (await http.get("/v1/models/doubled/labels/stable")).json()["ready"] is True
    assert (await http.get("/v1/models/doubled/labels/stable/metadata")).status_code == 200
    unknown = await http.post("/v1/models/doubled/labels/canary:predict", json=body)
    assert unknown.status_code == 404
    assert "labels are aliases" in unknown.json()["error"]


@pytest.mark.parametrize("verb", ["classify", "regress", "explain"])
async def test_v1s_other_verbs_are_named_as_not_offered(http: httpx.AsyncClient, verb: str) -> None:
    for path in ("doubled", "doubled/versions/1"):
        answer = await http.post(f"/v1/models/{path}:{verb}", json={"instances": [[1, 2]]})
        assert answer.status_code == 501
        assert answer.json() == {"error": f":{verb} is not offered: ask for :predict"}
    unknown = await http.post(f"/v1/models/nobody:{verb}", json={})
    assert (unknown.status_code, unknown.json()["error"]) == (
        404,
        "model 'nobody' is not registered",
    )


@pytest.mark.parametrize("path", ["nobody", "doubled/versions/9"])
@pytest.mark.parametrize("what", ["", "/infer", "/config", "/stats", "/ready"])
async def test_an_unknown_model_is_named_in_tritons_words(
    http: httpx.AsyncClient, path: str, what: str
) -> None:
    method = "POST" if what == "/infer" else "GET"
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    answer = await http.request(method, f"/v2/models/{path}{what}", json=body)
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("Request for unknown model: model ")
    nothing = await http.get("/v2/models/doubled/colour")
    assert nothing.json()["error"].startswith("there is no GET")


@pytest.mark.parametrize(
    "path", ["/v2/models/doubled", "/v2/models/doubled/ready", "/v1/models/doubled"]
)
async def test_head_is_get_without_a_body(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


async def test_openais_clients_are_told_of_an_unknown_model_in_their_form(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.get("/v1/models/nobody", headers={"x-stainless-lang": "python"})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "The model `nobody` does not exist."
    plain = await http.get("/v1/models/nobody")
    assert (plain.status_code, type(plain.json()["error"])) == (404, str)


async def test_names_may_be_quoted(http: httpx.AsyncClient, slashed: str) -> None:
    assert (await http.get(f"/v2/models/{slashed}")).json()["name"] == "a/b größe"
    answer = await http.post(f"/v1/models/{slashed}%3Apredict", json={"instances": [[1, 2]]})
    assert answer.json() == {"predictions": [[2.0, 4.0]]}


async def test_metadata_names_no_model_over_rest(http: httpx.AsyncClient) -> None:
    """The gateway found the worker by the URL."""
    answer = await http.post(
        "/v1/models/doubled:predict",
        json={"instances": [[1, 2]]},
        headers={"mm-model-id": "nobody"},
    )
    assert answer.status_code == 200


async def test_bodies_may_be_compressed(http: httpx.AsyncClient) -> None:
    headers = {"content-encoding": "gzip"}
    body = gzip.compress(b'{"instances": [[1, 2]]}')
    assert (
        await http.post("/v1/models/doubled:predict", content=body, headers=headers)
    ).json() == {"predictions": [[2.0, 4.0]]}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/doubled/infer"),
        ("POST", "/v2/models/doubled"),
        ("GET", "/v2/models/doubled/nothing"),
        ("POST", "/v1/models/doubled"),
        ("POST", "/v1/models/doubled/"),
        ("POST", "/v1/models/doubled/versions/1"),
        ("POST", "/v1/models/doubled/metadata"),
        ("POST", "/v1/models/doubled/nothing:predict"),
        ("PUT", "/v1/models/doubled:predict"),
        ("GET", "/v1/models/nobody/metadata"),
        ("GET", "/v1/models/doubled:predict"),
        ("GET", "/v1/models"),
        ("GET", "/v2/models/nobody"),
        ("GET", "/v2/models/doubled/versions/9/ready"),
    ],
)
async def test_unknown_paths_and_models_are_404(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


async def test_a_model_that_can_not_be_loaded_is_not_ready(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker, storage: helpers.FakeStorage
) -> None:
    helpers.apply(
        pool_worker, *helpers.declared(helpers.spec("empty", str(storage.folder / "empty")))
    )
    assert (await http.get("/v2/models/empty")).status_code == 424
    answer = await http.get("/v2/models/empty/ready")
    assert (answer.status_code, answer.json()["ready"]) == (424, False)


async def test_a_raw_binary_request_is_answered_in_binary(http: httpx.AsyncClient) -> None:
    row = np.array([1, 2], np.float32)
    answer = await http.post(
        "/v2/models/doubled/infer",
        content=row.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )
    size = int(answer.headers["inference-header-content-length"])
    np.testing.assert_array_equal(np.frombuffer(answer.content[size:], np.float32), row * 2)


async def test_classes_are_answered_in_place_of_values(http: httpx.AsyncClient) -> None:
    outputs = [{"name": "y", "parameters": {"classification": 1}}]
    answer = await http.post("/v2/models/doubled/infer", json={"inputs": [ROW], "outputs": outputs})
    assert answer.json()["outputs"] == [
        {"name": "y", "datatype": "BYTES", "shape": [1, 1], "data": ["4.000000:1"]}
    ]


async def test_a_folder_of_triton_is_served_whole(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker, storage: helpers.FakeStorage
) -> None:
    top = storage.folder / "triton"
    (top / "4").mkdir(parents=True)
    (top / "4" / "model.py").write_text(
        "import triton_python_backend_utils as pb_utils\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        x = requests[0].inputs()[0].as_numpy()\n"
        "        assert x.shape[1:] == (3, 1), x.shape\n"
        "        return [pb_utils.InferenceResponse([pb_utils.Tensor('y', x[:, :, 0])])]\n"
    )
    (top / "names.txt").write_text("cat\ndog\nfox\n")
    (top / "config.pbtxt").write_text(
        'backend: "python" max_batch_size: 2\n'
        'input { name: "x" data_type: TYPE_FP32 dims: 3 reshape { shape: [ 3, 1 ] } }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: 3 label_filename: "names.txt" }\n'
    )
    spec = model.ModelSpec(model.ModelId("animals"), str(top), trust=True)
    helpers.apply(pool_worker, *helpers.declared(spec))
    config = (await http.get("/v2/models/animals/config")).json()
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("animals", "python", 2)
    assert config["input"][0]["dims"] == [3]
    assert config["input"][0]["reshape"] == {"shape": [3, 1]}
    row = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [0.5, 2, 1]}
    outputs = [{"name": "y", "parameters": {"classification": 2}}]
    answer = await http.post("/v2/models/animals/infer", json={"inputs": [row], "outputs": outputs})
    assert answer.json()["outputs"] == [
        {
            "name": "y",
            "datatype": "BYTES",
            "shape": [1, 2],
            "data": ["2.000000:1:dog", "1.000000:2:fox"],
        }
    ]
    many = {**row, "shape": [3, 3], "data": [0.0] * 9}
    refused = await http.post("/v2/models/animals/infer", json={"inputs": [many]})
    assert refused.status_code == 400
    assert "batch-size must be <= 2 for 'animals'" in refused.text


SEES = """
    import json

    class Model:
        inputs = [("x", "FP32", [-1, 2])]
        outputs = [("said", "BYTES", [-1])]
        batchable = True

        def predict(self, inputs, request):
            said = [request.id, request.parameters.get("a"), request.headers.get("x-tenant")]
            said += [request.headers.get("authorization"), list(request.outputs)]
            return {"said": [json.dumps(said)]}
"""


@pytest.mark.parametrize("path", ["rest", "grpc", "v1"])
async def test_a_class_sees_ids_parameters_and_harmless_headers(
    http: httpx.AsyncClient,
    pool_worker: worker.PoolWorker,
    storage: helpers.FakeStorage,
    path: str,
) -> None:
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("sees", storage.put("sees", SEES))))
    headers = {"x-tenant": "acme", "authorization": "Bearer secret"}
    if path == "rest":
        document: dict[str, Any] = {"id": "7", "parameters": {"a": 1}, "inputs": [ROW]}
        answer = await http.post("/v2/models/sees/infer", json=document, headers=headers)
        said = answer.json()["outputs"][0]["data"][0]
    elif path == "v1":
        document = {"instances": [[1, 2]]}
        answer = await http.post("/v1/models/sees:predict", json=document, headers=headers)
        said = answer.json()["predictions"][0]
    else:
        row = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
        request = pb.ModelInferRequest(
            model_name="sees", id="7", inputs=[row], raw_input_contents=[bytes(8)]
        )
        request.parameters["a"].int64_param = 1
        answer = await http.post(
            helpers.INFER, content=request.SerializeToString(), headers=headers | helpers.CALL
        )
        reply = pb.ModelInferResponse.FromString(answer.content)
        said = reply.raw_output_contents[0][4:].decode()
    expected: list[object] = ["", None] if path == "v1" else ["7", 1]
    assert json.loads(said) == [*expected, "acme", None, []]


async def test_a_class_of_mlservers_takes_and_gives_any_tensors(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker, storage: helpers.FakeStorage
) -> None:
    folder = storage.folder / "mine"
    folder.mkdir()
    mlserver_models.write(folder, "Hello", mlserver_models.HELLO)
    helpers.apply(pool_worker, *helpers.declared(helpers.spec("mine", str(folder))))
    text = '{"a": 1}'
    sent = {"name": "any", "datatype": "BYTES", "shape": [len(text)], "data": [text]}
    answer = await http.post("/v2/models/mine/infer", json={"id": "7", "inputs": [sent]})
    (output,) = answer.json()["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("echo", "BYTES", [1])
    assert output["parameters"] == {"content_type": "str"}
    assert json.loads(output["data"][0]) == {"hello": {"a": 1}, "raw": text}
    assert (answer.json()["id"], answer.json()["model_name"]) == ("7", "mine")
    metadata = (await http.get("/v2/models/mine")).json()
    assert (metadata["platform"], metadata.get("inputs", [])) == ("mlserver", [])
    refused = await http.post("/v1/models/mine:predict", json={"instances": [1]})
    assert (refused.status_code, "/v2/models" in refused.json()["error"]) == (400, True)
    tensor = pb.ModelInferRequest.InferInputTensor(name="any", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(text.encode())
    request = pb.ModelInferRequest(model_name="mine", inputs=[tensor])
    typed = await http.post(
        helpers.INFER, content=request.SerializeToString(), headers=helpers.CALL
    )
    reply = pb.ModelInferResponse.FromString(typed.content)
    # Its clients read typed contents, as those of MLServer's own runtimes.
    assert b"hello" in reply.outputs[0].contents.bytes_contents[0]
    assert reply.outputs[0].parameters["content_type"].string_param == "str"
