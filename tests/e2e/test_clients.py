"""Triton's clients, unchanged, against every kind of model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.e2e import asking, conftest, running, zoo

pytestmark = pytest.mark.edge

KINDS = ("linear", "scripted", "iris", "boosted", "forest", "doubled")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, models: conftest.Models) -> zoo.Kind:
    return next(kind for kind in models.kinds if kind.name == request.param)


def test_every_model_answers_over_grpc(
    over_grpc: tritonclient.grpc.InferenceServerClient, kind: zoo.Kind
) -> None:
    answer = over_grpc.infer(
        kind.name, [asking.over_grpc(kind.input, kind.rows, kind.datatype)], "1"
    )
    np.testing.assert_allclose(answer.as_numpy(kind.output), kind.answer, rtol=1e-6)


@pytest.mark.parametrize("is_binary_in", [True, False])
@pytest.mark.parametrize("is_binary_out", [True, False])
def test_http_answers_as_grpc_does(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    kind: zoo.Kind,
    is_binary_in: bool,
    is_binary_out: bool,
) -> None:
    same = over_grpc.infer(kind.name, [asking.over_grpc(kind.input, kind.rows, kind.datatype)], "1")
    asked = [asking.over_http(kind.input, kind.rows, kind.datatype, is_binary=is_binary_in)]
    wanted = [tritonclient.http.InferRequestedOutput(kind.output, binary_data=is_binary_out)]
    answer = over_http.infer(kind.name, asked, "1", outputs=wanted)
    np.testing.assert_array_equal(answer.as_numpy(kind.output), same.as_numpy(kind.output))


def test_v1_answers_the_same(mesh: running.Mesh, kind: zoo.Kind) -> None:
    body = {"instances": kind.rows.tolist()}
    predictions = (
        mesh.http.post(f"/v1/models/{kind.name}/versions/1:predict", json=body)
        .raise_for_status()
        .json()["predictions"]
    )
    answers = (
        [row[kind.output] for row in predictions]
        if isinstance(predictions[0], dict)
        else predictions
    )
    np.testing.assert_allclose(np.array(answers), kind.answer, rtol=1e-6)


def test_metadata_describes_the_model(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    kind: zoo.Kind,
) -> None:
    reply = json_format.MessageToDict(
        over_grpc.get_model_metadata(kind.name, "1"), preserving_proto_field_name=True
    )
    row = {"name": kind.input, "datatype": kind.datatype, "shape": ["-1", "4"]}
    assert reply["inputs"] == [row]
    assert kind.output in [output["name"] for output in reply["outputs"]]
    same = over_http.get_model_metadata(kind.name, "1")
    assert [spec["name"] for spec in same["outputs"]] == [spec["name"] for spec in reply["outputs"]]
    assert same["inputs"] == [{**row, "shape": [-1, 4]}]


def test_config_describes_the_model(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    kind: zoo.Kind,
) -> None:
    config = over_grpc.get_model_config(kind.name, "1").config
    assert (config.name, config.max_batch_size) == (kind.name, 256)
    assert [(spec.name, list(spec.dims)) for spec in config.input] == [(kind.input, [4])]
    assert (
        json_format.ParseDict(over_http.get_model_config(kind.name, "1"), type(config)()) == config
    )


def test_statistics_count_requests(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    kind: zoo.Kind,
) -> None:
    def success() -> Any:
        return (
            over_grpc.get_inference_statistics(kind.name, "1")
            .model_stats[0]
            .inference_stats.success.count
        )

    before = success()
    over_grpc.infer(kind.name, [asking.over_grpc(kind.input, kind.rows, kind.datatype)], "1")
    assert success() == before + 1
    reply = over_http.get_inference_statistics(kind.name, "1")["model_stats"][0]
    assert reply["inference_stats"]["success"]["count"] == before + 1
    assert reply["memory_usage"][0]["byte_size"] > 0


def test_the_repository_lists_every_version(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    mesh: running.Mesh,
) -> None:
    entries = {(entry["name"], entry.get("version", "1")) for entry in mesh.document["models"]}
    listed = over_grpc.get_model_repository_index().models
    assert {(spec.name, spec.version) for spec in listed} >= entries
    assert {
        (spec["name"], spec["version"]) for spec in over_http.get_model_repository_index()
    } >= entries


def test_statistics_cover_all_models(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    mesh: running.Mesh,
) -> None:
    names = {entry["name"] for entry in mesh.document["models"]}
    assert {spec.name for spec in over_grpc.get_inference_statistics().model_stats} >= names
    assert {spec["name"] for spec in over_http.get_inference_statistics()["model_stats"]} >= names


def test_the_server_is_live_and_has_metadata(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    mesh: running.Mesh,
) -> None:
    assert over_grpc.is_server_live()
    assert over_grpc.is_server_ready()
    assert over_http.is_server_live()
    assert over_http.is_server_ready()
    metadata = over_grpc.get_server_metadata()
    assert metadata.name == over_http.get_server_metadata()["name"] == "meshserve"
    assert metadata.extensions == over_http.get_server_metadata()["extensions"]
    assert mesh.http.get("/healthz").status_code == mesh.http.get("/readyz").status_code == 200


def test_a_registered_model_is_ready(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    assert over_grpc.is_model_ready("doubled")
    assert over_http.is_model_ready("doubled")
    assert not over_http.is_model_ready("nobody")
    assert not over_grpc.is_model_ready("nobody")


def test_health_and_reflection_answer(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    reply = next(
        reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(asked))
    )
    services = {service.name for service in reply.list_services_response.service}
    wanted = {
        "inference.GRPCInferenceService",
        "inference.model_repository.ModelRepositoryService",
        "mmesh.ModelMesh",
        "grpc.health.v1.Health",
    }
    assert services >= wanted


async def test_a_stream_is_answered_in_order_with_errors_in_place(mesh: running.Mesh) -> None:
    def asked() -> Iterator[Any]:
        for number in range(40):
            model = "nobody" if number == 7 else "moody"
            yield {
                "model_name": model,
                "inputs": [asking.over_grpc("x", np.array([number], np.float32), "FP32")],
                "request_id": str(number),
            }

    async def stream() -> AsyncIterator[Any]:
        for spec in asked():
            yield spec

    answers = []
    async with tritonclient.grpc.aio.InferenceServerClient(mesh.listen) as client:
        async with asyncio.timeout(60):
            async for result, error in client.stream_infer(stream()):
                answers.append(str(error) if error else float(result.as_numpy("y")[0]))
    assert answers[:7] + answers[8:] == [float(number) for number in range(40) if number != 7]
    assert "nobody" in str(answers[7])


def test_shared_memory_is_declined(over_grpc: tritonclient.grpc.InferenceServerClient) -> None:
    assert not over_grpc.get_system_shared_memory_status().regions
    assert not over_grpc.get_cuda_shared_memory_status().regions
    over_grpc.unregister_system_shared_memory()
    over_grpc.unregister_cuda_shared_memory()
    with pytest.raises(InferenceServerException, match="shared memory is not offered") as caught:
        over_grpc.register_system_shared_memory("region", "/region", 64)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    with pytest.raises(InferenceServerException, match="shared memory is not offered"):
        over_grpc.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 64)


def test_shared_memory_is_declined_over_http_too(
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    with pytest.raises(InferenceServerException, match="shared memory is not offered") as caught:
        over_http.register_system_shared_memory("region", "/region", 64)
    assert caught.value.status() == "501"
    assert over_http.get_system_shared_memory_status() == []
    assert over_http.get_cuda_shared_memory_status() == []
    over_http.unregister_system_shared_memory()


def test_trace_and_log_settings_are_shown_over_http(
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    assert over_http.get_trace_settings()["trace_level"] == ["OFF"]
    assert over_http.get_log_settings()["log_error"] is True
    with pytest.raises(InferenceServerException, match="log settings can't be changed"):
        over_http.update_log_settings({"log_verbose_level": 1})


def test_trace_and_log_settings_are_shown(
    over_grpc: tritonclient.grpc.InferenceServerClient,
) -> None:
    assert over_grpc.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]
    assert over_grpc.get_log_settings(as_json=True)["settings"]["log_error"] == {"bool_param": True}
    with pytest.raises(InferenceServerException, match="trace settings can't be changed"):
        over_grpc.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})


def test_versions_and_aliases_mean_their_model(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    given = asking.over_grpc("x", np.ones((1, 4), np.float32), "FP32")
    by_version = {
        version: over_grpc.infer("linear", [given], version) for version in ("1", "2", "")
    }
    assert {version: answer.as_numpy("y")[0, 0] for version, answer in by_version.items()} == {
        "1": 4,
        "2": 40,
        "": 40,
    }
    assert {
        version: answer.get_response().model_version for version, answer in by_version.items()
    } == {"1": "1", "2": "2", "": "2"}
    through_alias = over_grpc.infer("stable", [given])
    assert (through_alias.as_numpy("y")[0, 0], through_alias.get_response().model_name) == (
        40,
        "stable",
    )
    again = over_http.infer(
        "linear", [asking.over_http("x", np.ones((1, 4), np.float32), "FP32")], "1"
    )
    assert (again.as_numpy("y")[0, 0], again.get_response()["model_version"]) == (4, "1")
    assert over_grpc.get_model_metadata("linear").versions == ["1", "2"]


def test_the_id_is_returned(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    rows = np.ones((1, 4), np.float32)
    over = over_grpc.infer("doubled", [asking.over_grpc("x", rows, "FP32")], request_id="größe-1")
    assert over.get_response().id == "größe-1"
    same = over_http.infer("doubled", [asking.over_http("x", rows, "FP32")], request_id="größe-1")
    assert same.get_response()["id"] == "größe-1"


def test_only_requested_outputs_are_returned(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    a, b = np.array([[5, 7]]), np.array([[1, 2]])
    wanted = [tritonclient.grpc.InferRequestedOutput("difference")]
    some = over_grpc.infer(
        "pair",
        [asking.over_grpc("a", a, "INT64"), asking.over_grpc("b", b, "INT64")],
        outputs=wanted,
    )
    assert [output.name for output in some.get_response().outputs] == ["difference"]
    assert some.as_numpy("difference").tolist() == [[4, 5]]
    given = [asking.over_http("a", a, "INT64"), asking.over_http("b", b, "INT64")]
    assert [
        output["name"] for output in over_http.infer("pair", given).get_response()["outputs"]
    ] == ["sum", "difference"]
    some = over_http.infer("pair", given, outputs=asking.binary("sum"))
    assert [output["name"] for output in some.get_response()["outputs"]] == ["sum"]
    assert some.as_numpy("sum").tolist() == [[6, 9]]


def test_compressed_requests_are_answered(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
) -> None:
    rows = np.ones((3, 4), np.float32)
    for algorithm in ("gzip", "deflate"):
        answer = over_grpc.infer(
            "doubled", [asking.over_grpc("x", rows, "FP32")], compression_algorithm=algorithm
        )
        np.testing.assert_array_equal(answer.as_numpy("y"), rows * 2)
        asked = [asking.over_http("x", rows, "FP32")]
        answer = over_http.infer(
            "doubled",
            asked,
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        np.testing.assert_array_equal(answer.as_numpy("y"), rows * 2)


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
