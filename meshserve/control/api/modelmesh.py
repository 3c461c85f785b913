"""`mmesh.ModelMesh`: ModelMesh's management calls. Its models are ours in their only version, its virtual models are our aliases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import orjson

from meshserve import errors, tasks
from meshserve.control import admin_service, mesh_views
from meshserve.core.values import desired, events, model, reports
from meshserve.protocol.pb import modelmesh_pb2 as pb

Status = pb.ModelStatusInfo
VStatus = pb.VModelStatusInfo
STATES = {
    "absent": Status.NOT_LOADED,
    "fetching": Status.LOADING,
    "loading": Status.LOADING,
    "ready": Status.LOADED,
    "parked": Status.LOADED,
    "evicting": Status.NOT_LOADED,
    "failed": Status.LOADING_FAILED,
}
MOVE_TIMEOUT_S = 240.0


class ModelMesh:
    """One method for each call. A load that fails is told as a status, not as an error of the call, as in ModelMesh."""

    def __init__(self, of: admin_service.AdminService) -> None:
        self._clerk = of
        self._loads: set[asyncio.Task[None]] = set()

    async def register_model(self, request: pb.RegisterModelRequest) -> pb.ModelStatusInfo:
        """Register a model, and load it where asked to. Raises AlreadyExists for another definition."""
        name = _needed(request.modelId, "modelId")
        await self._clerk.register(
            self._spec(name, request.modelInfo, model.FROM_API), is_replacing=False
        )
        if request.loadNow:
            return await self._load(name, is_waiting=request.sync)
        return await self._status(name)

    async def unregister_model(
        self, request: pb.UnregisterModelRequest
    ) -> pb.UnregisterModelResponse:
        """Remove a model; no error where there is none. Raises Conflict where an alias needs it."""
        name = _needed(request.modelId, "modelId")
        if self._clerk.view().models.versions(name):
            await self._clerk.remove(name)
        return pb.UnregisterModelResponse()

    async def model_status(self, request: pb.GetStatusRequest) -> pb.ModelStatusInfo:
        """Where a model is in its life; NOT_FOUND is a status."""
        return await self._status(_needed(request.modelId, "modelId"))

    async def ensure_loaded(self, request: pb.EnsureLoadedRequest) -> pb.ModelStatusInfo:
        """Load a model. Raises ModelNotFound."""
        name = _needed(request.modelId, "modelId")
        self._clerk.declared(name)
        return await self._load(name, is_waiting=request.sync)

    async def set_vmodel(self, request: pb.SetVModelRequest) -> pb.VModelStatusInfo:
        """Have an alias mean a model: a new one at once, another one once the new target answers, or is forced."""
        alias = _needed(request.vModelId, "vModelId")
        target = _needed(request.targetModelId, "targetModelId")
        is_new = alias not in self._clerk.view().aliases
        await self._clerk.set_alias(
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
        """Clear an alias, and remove what was registered for it alone; no error where there is none of that owner."""
        alias = _needed(request.vModelId, "vModelId")
        if self._owned(alias, request.owner) is not None:
            await self._clerk.clear_alias(alias, request.owner)
        return pb.DeleteVModelResponse()

    async def vmodel_status(self, request: pb.GetVModelStatusRequest) -> pb.VModelStatusInfo:
        """What an alias means now, and what it will; NOT_FOUND is a status."""
        return await self._vstatus(_needed(request.vModelId, "vModelId"), request.owner)

    def _owned(self, alias: str, owner: str) -> desired.DesiredAlias | None:
        found = self._clerk.view().aliases.get(alias)
        return found if found is not None and owner in ("", found.owner) else None

    async def _load(self, name: str, *, is_waiting: bool) -> pb.ModelStatusInfo:
        if is_waiting:
            await self._try_load(name)
            return await self._status(name)
        self._spawn(self._try_load(name))
        status = await self._status(name)
        if status.status in (Status.NOT_LOADED, Status.UNKNOWN):
            status.status = Status.LOADING
        return status

    async def _try_load(self, name: str) -> None:
        try:
            await self._clerk.load(name)
        except (
            errors.LoadFailed,
            errors.DeadlineExceeded,
            errors.Unavailable,
            errors.Overloaded,
            errors.ModelNotFound,
        ):
            # The model's status tells it to whoever asks.
            return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = tasks.spawn(work, "load")
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    async def _wait_until_moved(self, alias: str, target: str) -> None:
        """Return when the alias moved or could not; after a long time also when it still moves, as its status then says."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOVE_TIMEOUT_S):
                await self._clerk.wait_until_moved(alias, target)

    async def _status(self, name: str) -> pb.ModelStatusInfo:
        try:
            id_ = self._clerk.declared(name).spec.id
        except errors.ModelNotFound:
            return Status(status=Status.NOT_FOUND)
        return model_status(await self._clerk.copies(id_))

    async def _vstatus(self, name: str, owner: str) -> pb.VModelStatusInfo:
        alias = self._owned(name, owner)
        if alias is None:
            return VStatus(
                status=VStatus.NOT_FOUND, activeModelStatus=Status(status=Status.NOT_FOUND)
            )
        told = VStatus(
            status=vmodel_state(alias),
            activeModelId=alias.name,
            targetModelId=alias.target or alias.name,
            activeModelStatus=await self._status(alias.name),
            owner=alias.owner,
        )
        if alias.target:
            state = Status.LOADING_FAILED if alias.failure else Status.LOADING
            told.targetModelStatus.CopyFrom(
                Status(status=state, errors=[alias.failure] if alias.failure else [])
            )
        return told

    def _spec(self, name: str, about: pb.ModelInfo, origin: model.Origin) -> model.ModelSpec:
        return self._clerk.spec({"name": name, **entry_from(about)}, origin)


def _needed(found: str, field: str) -> str:
    if not found:
        raise errors.InvalidRequest(f"{field} must not be empty")
    return found


def entry_from(about: pb.ModelInfo) -> dict[str, Any]:
    """A ModelInfo as keys of a `models:` entry.

    `type` is the runtime, plain or as JSON `{"name": …}`; `path` the URI; `key` nothing, or JSON whose `bucket`, or `storage_params`
    with a `bucket`, places the path in S3, and whose other known keys are taken as they are. Raises InvalidRequest.
    """
    key = _json(about.key, "key")
    stored = key.get("storage_params") if isinstance(key.get("storage_params"), dict) else {}
    bucket = key.get("bucket") or (stored or {}).get("bucket")
    uri = (
        f"s3://{bucket}/{about.path.lstrip('/')}"
        if bucket and "://" not in about.path
        else about.path
    )
    kept = {name: key[name] for name in KEPT if name in key}
    return {"uri": uri, "runtime": _runtime(about.type), **kept}


def _runtime(text: str) -> str:
    word = str(_json(text, "type").get("name", "")) if text.lstrip().startswith("{") else text
    return RUNTIMES.get(word.lower(), word.lower())


KEPT: tuple[str, ...] = ("pool", "trust", "checksum", "max_batch_size", "options")
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
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise errors.InvalidRequest(f"modelInfo.{field} is not JSON: {error}") from None
    return dict(found)


def vmodel_state(alias: desired.DesiredAlias) -> VStatus.VModelStatus:
    """An alias's state in ModelMesh's words."""
    if not alias.target:
        return VStatus.DEFINED
    return VStatus.TRANSITION_FAILED if alias.failure else VStatus.TRANSITIONING


def model_status(copies: dict[str, reports.CopyReport]) -> pb.ModelStatusInfo:
    """A model's status from its copies."""
    found = mesh_views.foremost(copies)
    told = Status(status=STATES[found[1].state] if found else Status.NOT_LOADED)
    told.errors.extend(sorted({copy.reason for copy in copies.values() if copy.reason}))
    for worker_id, copy in sorted(copies.items()):
        if STATES[copy.state] != Status.NOT_LOADED:
            told.modelCopyInfos.add(location=worker_id, copyStatus=STATES[copy.state])
    return told
