from __future__ import annotations

from typing import Any

import pytest

from meshserve import errors
from meshserve.control.api import modelmesh
from meshserve.core.values import desired, model
from meshserve.protocol.pb import modelmesh_pb2 as pb
from tests.control import conftest

Status, VStatus = pb.ModelStatusInfo, pb.VModelStatusInfo
ABOUT = pb.ModelInfo(type="onnx", path="/models/m")


@pytest.fixture
async def api(fresh: Any) -> Any:
    await fresh.start({**conftest.CONFIG, "gateway": {"file_roots": ["/models", "/other"]}})
    return modelmesh.ModelMesh(fresh.plane.admin)


@pytest.fixture
def stage(fresh: Any) -> Any:
    """The stage whose configuration lets clients register files."""
    return fresh


async def register(api: Any, name: Any = "m", **fields: Any) -> Any:
    return await api.register_model(
        pb.RegisterModelRequest(modelId=name, modelInfo=ABOUT, **fields)
    )


async def set_vmodel(api: Any, target: Any, **fields: Any) -> Any:
    return await api.set_vmodel(pb.SetVModelRequest(vModelId="v", targetModelId=target, **fields))


async def status(api: Any, name: Any = "m") -> Any:
    return (await api.model_status(pb.GetStatusRequest(modelId=name))).status


async def test_a_model_is_registered_and_not_loaded(api: Any, stage: Any) -> None:
    assert (await register(api)).status == Status.NOT_LOADED
    spec = stage.store.models[model.ModelId("m")].spec
    assert (spec.uri, spec.runtime) == ("/models/m", "onnx")
    assert (await register(api)).status == Status.NOT_LOADED


async def test_another_definition_of_a_name_is_refused(api: Any) -> None:
    await register(api)
    with pytest.raises(errors.AlreadyExists):
        await api.register_model(
            pb.RegisterModelRequest(modelId="m", modelInfo=pb.ModelInfo(type="onnx", path="/other"))
        )


async def test_a_model_whose_file_is_missing_is_refused(api: Any, stage: Any) -> None:
    await register(api, "known")
    stage.missing.add("/models/m")
    with pytest.raises(errors.InvalidRequest, match="nothing at /models/m"):
        await register(api)
    with pytest.raises(errors.InvalidRequest, match="nothing at /models/m"):
        await set_vmodel(api, "m", modelInfo=ABOUT)
    assert stage.names() == ["big", "conf", "known"]
    assert (await register(api, "known")).status == Status.NOT_LOADED


async def test_load_now_loads_a_registered_model(api: Any) -> None:
    reply = await register(api, loadNow=True, sync=True)
    assert reply.status == Status.LOADED
    assert [copy.copyStatus for copy in reply.modelCopyInfos] == [Status.LOADED]


async def test_a_load_without_sync_is_not_waited_for(api: Any, stage: Any) -> None:
    assert (await register(api, loadNow=True)).status in (Status.LOADING, Status.LOADED)
    await stage.until(lambda: any(worker.copies for worker in stage.cluster.workers.values()))
    assert await status(api) == Status.LOADED


async def test_a_failed_load_is_a_status_with_the_reason(api: Any, stage: Any) -> None:
    stage.cluster.failing_loads["m"] = "it is corrupt"
    reply = await register(api, loadNow=True, sync=True)
    assert (reply.status, list(reply.errors)) == (Status.LOADING_FAILED, ["it is corrupt"])


async def test_a_known_model_is_loaded(api: Any) -> None:
    await register(api)
    assert (
        await api.ensure_loaded(pb.EnsureLoadedRequest(modelId="m", sync=True))
    ).status == Status.LOADED
    with pytest.raises(errors.ModelNotFound):
        await api.ensure_loaded(pb.EnsureLoadedRequest(modelId="none", sync=True))


async def test_an_unknown_model_is_a_status(api: Any) -> None:
    assert await status(api, "none") == Status.NOT_FOUND


async def test_a_model_is_unregistered_and_unknown_ones_are_no_error(api: Any) -> None:
    await register(api)
    for _ in range(2):
        await api.unregister_model(pb.UnregisterModelRequest(modelId="m"))
    assert await status(api) == Status.NOT_FOUND


async def test_a_model_that_a_vmodel_needs_stays(api: Any) -> None:
    await register(api)
    await set_vmodel(api, "m")
    with pytest.raises(errors.Conflict):
        await api.unregister_model(pb.UnregisterModelRequest(modelId="m"))


async def test_a_new_vmodel_means_its_target_at_once(api: Any) -> None:
    await register(api)
    reply = await set_vmodel(api, "m", owner="me", loadNow=True, sync=True)
    assert (reply.status, reply.activeModelId, reply.targetModelId, reply.owner) == (
        VStatus.DEFINED,
        "m",
        "m",
        "me",
    )
    assert reply.activeModelStatus.status == Status.LOADED


async def test_a_vmodel_moves_once_its_target_answers(api: Any) -> None:
    await register(api)
    await set_vmodel(api, "m")
    reply = await set_vmodel(api, "next", modelInfo=ABOUT, sync=True)
    assert (reply.status, reply.activeModelId) == (VStatus.DEFINED, "next")


async def test_a_vmodel_whose_target_fails_keeps_its_model(api: Any, stage: Any) -> None:
    await register(api)
    await set_vmodel(api, "m")
    stage.cluster.failing_loads["next"] = "it is corrupt"
    reply = await set_vmodel(api, "next", modelInfo=ABOUT, sync=True)
    assert (reply.status, reply.activeModelId, reply.targetModelId) == (
        VStatus.TRANSITION_FAILED,
        "m",
        "next",
    )
    assert (reply.targetModelStatus.status, list(reply.targetModelStatus.errors)) == (
        Status.LOADING_FAILED,
        ["it is corrupt"],
    )


async def test_a_vmodel_that_is_forced_moves_at_once(api: Any, stage: Any) -> None:
    await register(api)
    await set_vmodel(api, "m")
    stage.cluster.failing_loads["next"] = "it is corrupt"
    assert (await set_vmodel(api, "next", modelInfo=ABOUT, force=True)).activeModelId == "next"


async def test_models_registered_for_a_vmodel_are_removed_with_it(api: Any, stage: Any) -> None:
    for target in ("one", "two"):
        await set_vmodel(api, target, modelInfo=ABOUT, autoDeleteTargetModel=True, sync=True)
    assert "one" not in stage.names()
    await api.delete_vmodel(pb.DeleteVModelRequest(vModelId="v"))
    assert stage.names() == ["big", "conf"]


async def test_a_vmodels_owner_alone_sees_and_changes_it(api: Any) -> None:
    await register(api)
    await set_vmodel(api, "m", owner="me")
    with pytest.raises(errors.AlreadyExists):
        await set_vmodel(api, "m", owner="you")
    asked = pb.GetVModelStatusRequest(vModelId="v", owner="you")
    assert (await api.vmodel_status(asked)).status == VStatus.NOT_FOUND
    await api.delete_vmodel(pb.DeleteVModelRequest(vModelId="v", owner="you"))
    assert (
        await api.vmodel_status(pb.GetVModelStatusRequest(vModelId="v"))
    ).status == VStatus.DEFINED


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"updateOnly": True}, errors.ModelNotFound),
        ({"expectedTargetModelId": "other"}, errors.Conflict),
        ({"targetModelId": "none"}, errors.ModelNotFound),
        ({"targetModelId": ""}, errors.InvalidRequest),
        ({"vModelId": ""}, errors.InvalidRequest),
    ],
)
async def test_update_only_and_expected_targets_are_checked(
    api: Any, fields: Any, refusal: Any
) -> None:
    await register(api)
    with pytest.raises(refusal):
        await api.set_vmodel(
            pb.SetVModelRequest(**{"vModelId": "v", "targetModelId": "m", **fields})
        )


@pytest.mark.parametrize(
    ("about", "entry"),
    [
        (pb.ModelInfo(type="PyTorch", path="/m"), {"uri": "/m", "runtime": "torch"}),
        (
            pb.ModelInfo(type='{"name": "onnx"}', path="m/1", key='{"bucket": "b"}'),
            {"uri": "s3://b/m/1", "runtime": "onnx"},
        ),
        (
            pb.ModelInfo(path="m", key='{"storage_params": {"bucket": "b"}}'),
            {"uri": "s3://b/m", "runtime": ""},
        ),
        (
            pb.ModelInfo(path="https://h/m", key='{"bucket": "b", "pool": "gpu"}'),
            {"uri": "https://h/m", "runtime": "", "pool": "gpu"},
        ),
        (pb.ModelInfo(path="/m", key="secret-name"), {"uri": "/m", "runtime": ""}),
    ],
)
def test_a_model_info_is_an_entry_of_the_configuration(about: Any, entry: Any) -> None:
    assert modelmesh.entry_from(about) == entry


def test_a_model_info_with_malformed_json_is_refused() -> None:
    with pytest.raises(errors.InvalidRequest, match=r"modelInfo\.key"):
        modelmesh.entry_from(pb.ModelInfo(path="m", key="{"))


@pytest.mark.parametrize(
    ("alias", "state"),
    [
        (desired.DesiredAlias("v", "a"), VStatus.DEFINED),
        (desired.DesiredAlias("v", "a", target="b"), VStatus.TRANSITIONING),
        (desired.DesiredAlias("v", "a", target="b", failure="x"), VStatus.TRANSITION_FAILED),
    ],
)
def test_the_state_of_an_alias_in_modelmeshs_words(alias: Any, state: Any) -> None:
    assert modelmesh.vmodel_state(alias) == state
