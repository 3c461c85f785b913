from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from meshserve.core.values import model
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import model_repository_pb2 as repository_pb
from tests.control import conftest

GRPC = {"content-type": "application/grpc"}


@pytest.fixture
def call(http: httpx.AsyncClient) -> Callable[..., Any]:
    async def perform(path: str, request: Any, answer: Any) -> Any:
        sent = await http.post(path, headers=GRPC, content=request.SerializeToString())
        code = int(sent.headers.get("x-mesh-grpc-status", "0"))
        return code or answer.FromString(sent.content)

    return perform


async def load(
    call: Callable[..., Any], answer: Any = pb.RepositoryModelLoadResponse, **fields: Any
) -> Any:
    return await call(
        paths.INFERENCE + "RepositoryModelLoad", pb.RepositoryModelLoadRequest(**fields), answer
    )


async def test_a_load_has_kserves_answer(call: Callable[..., Any]) -> None:
    answer = await load(call, model_name="conf")
    assert (answer.model_name, answer.isLoaded) == ("conf", True)


async def test_kserves_clients_use_the_field_of_the_repositorys_name(
    call: Callable[..., Any], stage: conftest.Stage
) -> None:
    assert (await load(call, repository_name="conf")).isLoaded
    assert f"load conf:1 on {stage.mesh.view().home('conf')}" in stage.cluster.calls


async def test_a_load_must_name_a_model(call: Callable[..., Any]) -> None:
    assert await load(call) == 3


async def test_files_come_as_bytes(call: Callable[..., Any], stage: conftest.Stage) -> None:
    given = {
        "config": pb.ModelRepositoryParameter(string_param="{}"),
        "file:1/m.onnx": pb.ModelRepositoryParameter(bytes_param=b"x"),
    }
    assert (await load(call, model_name="sent", parameters=given)).isLoaded
    assert model.ModelId("sent") in stage.store.models


async def test_a_parameter_of_another_kind_is_refused(call: Callable[..., Any]) -> None:
    assert (
        await load(
            call,
            model_name="sent",
            parameters={"config": pb.ModelRepositoryParameter(bool_param=True)},
        )
        == 3
    )


async def test_an_unload_has_kserves_answer(call: Callable[..., Any]) -> None:
    answer = await call(
        paths.INFERENCE + "RepositoryModelUnload",
        pb.RepositoryModelUnloadRequest(model_name="conf"),
        pb.RepositoryModelUnloadResponse,
    )
    assert answer.isUnloaded


async def test_mlservers_clients_use_a_service_of_its_own(call: Callable[..., Any]) -> None:
    answer = await call(
        paths.REPOSITORY + "RepositoryIndex",
        repository_pb.RepositoryIndexRequest(),
        repository_pb.RepositoryIndexResponse,
    )
    assert [entry.name for entry in answer.models] == ["big", "conf"]
    request = repository_pb.RepositoryModelLoadRequest(model_name="conf")
    assert (
        await call(
            paths.REPOSITORY + "RepositoryModelLoad",
            request,
            repository_pb.RepositoryModelLoadResponse,
        )
        != 5
    )


async def test_statistics_name_every_model(call: Callable[..., Any]) -> None:
    answer = await call(
        paths.INFERENCE + "ModelStatistics",
        pb.ModelStatisticsRequest(),
        pb.ModelStatisticsResponse,
    )
    assert [entry.name for entry in answer.model_stats] == ["big", "conf"]
    assert all(entry.memory_usage for entry in answer.model_stats)


@pytest.mark.parametrize("kind", ["System", "Cuda"])
async def test_shared_memory_is_empty_and_cannot_be_registered(
    call: Callable[..., Any], kind: str
) -> None:
    def message_class(verb: str, side: str) -> Any:
        return getattr(pb, f"{kind}SharedMemory{verb}{side}")

    for verb, expected in (("Status", 0), ("Register", 12), ("Unregister", 0)):
        answer = await call(
            f"{paths.INFERENCE}{kind}SharedMemory{verb}",
            message_class(verb, "Request")(),
            message_class(verb, "Response"),
        )
        assert answer == (expected or message_class(verb, "Response")())


async def test_traces_are_off_and_cannot_be_changed(call: Callable[..., Any]) -> None:
    path = paths.INFERENCE + "TraceSetting"
    answer = await call(path, pb.TraceSettingRequest(), pb.TraceSettingResponse)
    assert list(answer.settings["trace_level"].value) == ["OFF"]
    changed = pb.TraceSettingRequest(
        settings={"trace_level": pb.TraceSettingRequest.SettingValue(value=["TIMESTAMPS"])}
    )
    assert await call(path, changed, pb.TraceSettingResponse) == 12


async def test_log_settings_are_shown_and_cannot_be_changed(call: Callable[..., Any]) -> None:
    path = paths.INFERENCE + "LogSettings"
    answer = await call(path, pb.LogSettingsRequest(), pb.LogSettingsResponse)
    assert (
        answer.settings["log_error"].bool_param,
        answer.settings["log_format"].string_param,
    ) == (
        True,
        "default",
    )
    changed = pb.LogSettingsRequest(
        settings={"log_info": pb.LogSettingsRequest.SettingValue(bool_param=False)}
    )
    assert await call(path, changed, pb.LogSettingsResponse) == 12


async def test_an_unknown_method_is_unimplemented(call: Callable[..., Any]) -> None:
    assert (
        await call(
            "/inference.GRPCInferenceService/Explode", pb.ServerLiveRequest(), pb.ServerLiveResponse
        )
        == 12
    )


async def test_a_malformed_message_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        paths.INFERENCE + "RepositoryModelLoad", headers=GRPC, content=b"\xff\xff\xff"
    )
    assert answer.headers["x-mesh-grpc-status"] == "3"
