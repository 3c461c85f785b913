"""`mmesh.ModelMesh`: the management calls of KServe's ModelMesh.

A ModelMesh model is a model with a single version here; a virtual model is an alias.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from meshserve import errors, tasks
from meshserve.control import admin_service, mesh_json
from meshserve.control.api import rest_routes
from meshserve.core.values import desired, events, model, reports
from meshserve.protocol.pb import modelmesh_pb2 as pb

Status = pb.ModelStatusInfo
VStatus = pb.VModelStatusInfo
STATES = {
    "absent": Status.NOT_LOADED,
    "fetching": Status.LOADING,
    "loading": Status.LOADING,
    "ready": Status.LOADED,
    # It is in host memory, and comes back without its file.
    "parked": Status.LOADED,
    "evicting": Status.NOT_LOADED,
    "failed": Status.LOADING_FAILED,
}
MOVE_TIMEOUT_S = 240.0


class ModelMesh:
    """One method per call. As in ModelMesh, a failed load is a status, not an error."""

    def __init__(self, service: admin_service.AdminService) -> None:
        self._service = service

    async def register_model(self, request: pb.RegisterModelRequest) -> pb.ModelStatusInfo:
        """Register a model, and load it if `loadNow` is set.

        Raises AlreadyExists if the name has another definition.
        """
        name = _needed(request.modelId, "modelId")
        await self._service.register(
            self._spec(name, request.modelInfo, model.FROM_API), is_replacing=False
        )
        if request.loadNow:
            return await self._load(name, is_waiting=request.sync)
        return await self._status(name)

    async def unregister_model(
        self, request: pb.UnregisterModelRequest
    ) -> pb.UnregisterModelResponse:
        """Remove a model, if it exists. Raises Conflict if an alias needs it."""
        name = _needed(request.modelId, "modelId")
        # An unknown model is no error, so that callers may repeat a removal; but no worker may have
        # it any more.
        if self._service.view().models.versions(name):
            await self._service.remove(name)
        else:
            await self._service.wait_until_taken()
        return pb.UnregisterModelResponse()

    async def model_status(self, request: pb.GetStatusRequest) -> pb.ModelStatusInfo:
        """Return a model's status, which may be NOT_FOUND."""
        return await self._status(_needed(request.modelId, "modelId"))

    async def ensure_loaded(self, request: pb.EnsureLoadedRequest) -> pb.ModelStatusInfo:
        """Load a model. Raises ModelNotFound."""
        name = _needed(request.modelId, "modelId")
        self._service.declared(name)
        return await self._load(name, is_waiting=request.sync)

    async def set_vmodel(self, request: pb.SetVModelRequest) -> pb.VModelStatusInfo:
        """Point an alias at a model.

        A new or forced alias moves at once, any other alias once its new target is loaded.
        """
        alias = _needed(request.vModelId, "vModelId")
        target = _needed(request.targetModelId, "targetModelId")
        # Asked before the change, after which every alias exists.
        is_new = alias not in self._service.view().aliases
        await self._service.set_alias(
            events.AliasRequested(
                desired.DesiredAlias(alias, target, owner=request.owner),
                is_gradual=not request.force,
                is_update_only=request.updateOnly,
                expected=request.expectedTargetModelId,
                spec=self._target_spec(target, request),
            )
        )
        if request.loadNow and (is_new or request.force):
            await self._load(alias, is_waiting=request.sync)
        elif request.sync:
            await self._wait_until_moved(alias, target)
        return await self._vstatus(alias, request.owner)

    def _target_spec(self, target: str, request: pb.SetVModelRequest) -> model.ModelSpec | None:
        if not request.HasField("modelInfo") or request.modelInfo == pb.ModelInfo():
            return None
        return self._spec(
            target,
            request.modelInfo,
            model.FROM_ALIAS if request.autoDeleteTargetModel else model.FROM_API,
        )

    async def delete_vmodel(self, request: pb.DeleteVModelRequest) -> pb.DeleteVModelResponse:
        """Clear an alias of this owner, if it exists, and remove models registered for it alone."""
        alias = _needed(request.vModelId, "vModelId")
        if self._owned(alias, request.owner) is not None:
            await self._service.clear_alias(alias, request.owner)
        else:
            await self._service.wait_until_taken()
        return pb.DeleteVModelResponse()

    async def vmodel_status(self, request: pb.GetVModelStatusRequest) -> pb.VModelStatusInfo:
        """Return an alias's present and coming target; the status may be NOT_FOUND."""
        return await self._vstatus(_needed(request.vModelId, "vModelId"), request.owner)

    def _owned(self, alias: str, owner: str) -> desired.DesiredAlias | None:
        current = self._service.view().aliases.get(alias)
        return current if current is not None and owner in ("", current.owner) else None

    async def _load(self, name: str, *, is_waiting: bool) -> pb.ModelStatusInfo:
        if is_waiting:
            await self._try_load(name)
            return await self._status(name)
        tasks.spawn(self._try_load(name), f"load {name}")
        status = await self._status(name)
        # No worker has reported yet the load that has just begun.
        if status.status in (Status.NOT_LOADED, Status.UNKNOWN):
            status.status = Status.LOADING
        return status

    async def _try_load(self, name: str) -> None:
        try:
            await self._service.load(name)
        except (
            errors.LoadFailed,
            errors.DeadlineExceeded,
            errors.Unavailable,
            errors.Overloaded,
            errors.ModelNotFound,
        ):
            # The model's status has the reason.
            return

    async def _wait_until_moved(self, alias: str, target: str) -> None:
        """Return when the alias has moved or its target has failed, or after 240 s."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOVE_TIMEOUT_S):
                await self._service.wait_until_moved(alias, target)

    async def _status(self, name: str) -> pb.ModelStatusInfo:
        try:
            id_ = self._service.declared(name).spec.id
        except errors.ModelNotFound:
            return Status(status=Status.NOT_FOUND)
        copies = await self._service.copies(id_)
        present = {worker: copy for worker, copy in copies.items() if copy.state != "absent"}
        return model_status(id_, present)

    async def _vstatus(self, name: str, owner: str) -> pb.VModelStatusInfo:
        alias = self._owned(name, owner)
        if alias is None:
            return VStatus(
                status=VStatus.NOT_FOUND, activeModelStatus=Status(status=Status.NOT_FOUND)
            )
        status = VStatus(
            status=vmodel_state(alias),
            activeModelId=alias.name,
            targetModelId=alias.target or alias.name,
            activeModelStatus=await self._status(alias.name),
            owner=alias.owner,
        )
        if alias.target:
            state = Status.LOADING_FAILED if alias.failure else Status.LOADING
            status.targetModelStatus.CopyFrom(
                Status(status=state, errors=[alias.failure] if alias.failure else [])
            )
        return status

    def _spec(self, name: str, info: pb.ModelInfo, origin: model.Origin) -> model.ModelSpec:
        return self._service.spec({"name": name, **entry_from(info)}, origin)


def _needed(value: str, field: str) -> str:
    if not value:
        raise errors.InvalidRequest(f"{field} must not be empty")
    return value


def entry_from(info: pb.ModelInfo) -> dict[str, Any]:
    """Return a ModelInfo as keys of a `models:` entry.

    `type` is the runtime, plain or as JSON `{"name": …}`, and `path` the URI. `key` is empty or
    JSON: its `bucket`, or that inside `storage_params`, makes `path` a path in that S3 bucket, and
    the keys in KEPT are copied to the entry.
    Raises InvalidRequest for malformed JSON.
    """
    key = _json(info.key, "key")
    storage = key.get("storage_params")
    bucket = key.get("bucket") or (storage.get("bucket") if isinstance(storage, dict) else None)
    # A path with a scheme says itself where it is.
    has_bucket = bucket and "://" not in info.path
    uri = f"s3://{bucket}/{info.path.lstrip('/')}" if has_bucket else info.path
    kept = {name: key[name] for name in KEPT if name in key}
    return {"uri": uri, "runtime": _runtime(info.type), **kept}


def _runtime(text: str) -> str:
    word = str(_json(text, "type").get("name", "")) if text.lstrip().startswith("{") else text
    return RUNTIMES.get(word.lower(), word.lower())


KEPT: tuple[str, ...] = (
    *("pool", "trust", "checksum", "isolate", "predict_timeout_s", "max_batch_size", "options"),
)
# ModelMesh's model types whose runtime has another name here, or ("") is inferred from the files.
RUNTIMES = {
    "pytorch": "torch",
    "tensorflow": "",
    "any": "",
    "mlserver": "",
    "rt": "",
    "sklearn": "sklearn",
}


def _json(text: str, field: str) -> dict[str, Any]:
    if not text.lstrip().startswith("{"):
        return {}
    return rest_routes.json_object(text, f"modelInfo.{field}")


def vmodel_state(alias: desired.DesiredAlias) -> VStatus.VModelStatus:
    """Return ModelMesh's word for the state of an alias."""
    if not alias.target:
        return VStatus.DEFINED
    return VStatus.TRANSITION_FAILED if alias.failure else VStatus.TRANSITIONING


def model_status(id_: model.ModelId, copies: dict[str, reports.CopyReport]) -> pb.ModelStatusInfo:
    """Return the status of a model with these copies, by worker."""
    status = Status(status=STATES[mesh_json.foremost(id_, copies)[1].state])
    status.errors.extend(sorted({copy.reason for copy in copies.values() if copy.reason}))
    for worker_id, copy in sorted(copies.items()):
        if STATES[copy.state] != Status.NOT_LOADED:
            status.modelCopyInfos.add(location=worker_id, copyStatus=STATES[copy.state])
    return status
