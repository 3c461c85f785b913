"""The gRPC methods that the controller answers, as bare messages: Envoy's bridge took the frames off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import message

from meshserve import errors
from meshserve.control import admin_service
from meshserve.control.api import http_messages, modelmesh, triton_repository
from meshserve.protocol import model_description, paths
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import modelmesh_pb2 as mm

TRACE = {
    "trace_file": [""],
    "trace_level": ["OFF"],
    "trace_rate": ["0"],
    "trace_count": ["0"],
    "log_frequency": ["0"],
}
LOG: dict[str, str | int | bool] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
NO_SHARED_MEMORY = "shared memory is not offered: send tensors in the request"
NO_TRACE_CHANGES = "trace settings can't be changed: traces are the gateway's"
NO_LOG_CHANGES = "log settings can't be changed while the mesh runs"
Method = tuple[type[message.Message], Callable[[Any], Awaitable[message.Message]]]


class ManagementMethods:
    """All methods by path."""

    def __init__(self, of: admin_service.AdminService, files_dir: str) -> None:
        self._repository = triton_repository.TritonRepository(of, files_dir)
        self._methods: dict[str, Method] = {
            **self._verbs(),
            **{paths.in_repository_service(path): verb for path, verb in self._verbs().items()},
            **self._statistics(),
            **_shared_memory(),
            **_settings(),
            **_model_mesh(modelmesh.ModelMesh(of)),
        }

    async def answer(self, request: http_messages.HttpRequest) -> bytes:
        """The answer's message. Raises MeshError."""
        if request.path not in self._methods:
            raise errors.Unsupported(f"there is no method {request.path}")
        kind, perform = self._methods[request.path]
        try:
            asked = kind.FromString(request.body)
        except message.DecodeError:
            raise errors.InvalidRequest(f"the body is no {kind.DESCRIPTOR.name}") from None
        answer = await perform(asked)
        return answer.SerializeToString()

    def _verbs(self) -> dict[str, Method]:
        return {
            paths.REPOSITORY_INDEX: (pb.RepositoryIndexRequest, self._index),
            paths.REPOSITORY_MODEL_LOAD: (pb.RepositoryModelLoadRequest, self._load),
            paths.REPOSITORY_MODEL_UNLOAD: (pb.RepositoryModelUnloadRequest, self._unload),
        }

    async def _index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        return model_description.index_message(self._repository.index(only_ready=request.ready))

    async def _load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        name = named(request)
        await self._repository.load(
            name, {key: _parameter(key, found) for key, found in request.parameters.items()}
        )
        return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def _unload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        name = named(request)
        await self._repository.unload(name)
        return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)

    def _statistics(self) -> dict[str, Method]:
        async def statistics(_: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
            return model_description.statistics_message(await self._repository.statistics())

        return {paths.MODEL_STATISTICS: (pb.ModelStatisticsRequest, statistics)}


def named(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """The model: KServe's clients write its name where Triton's write the repository's."""
    return request.model_name or request.repository_name


def _parameter(key: str, found: pb.ModelRepositoryParameter) -> str | bytes:
    match found.WhichOneof("parameter_choice"):
        case "string_param":
            return found.string_param
        case "bytes_param":
            return found.bytes_param
    raise errors.InvalidRequest(f"parameter {key!r} must be a string or bytes")


def _shared_memory() -> dict[str, Method]:
    async def refuse(_: message.Message) -> message.Message:
        raise errors.Unsupported(NO_SHARED_MEMORY)

    async def no_system(_: message.Message) -> message.Message:
        return pb.SystemSharedMemoryStatusResponse()

    async def no_cuda(_: message.Message) -> message.Message:
        return pb.CudaSharedMemoryStatusResponse()

    async def nothing(_: message.Message) -> message.Message:
        return pb.SystemSharedMemoryUnregisterResponse()

    return {
        paths.SYSTEM_SHARED_MEMORY_STATUS: (pb.SystemSharedMemoryStatusRequest, no_system),
        paths.SYSTEM_SHARED_MEMORY_REGISTER: (pb.SystemSharedMemoryRegisterRequest, refuse),
        paths.SYSTEM_SHARED_MEMORY_UNREGISTER: (pb.SystemSharedMemoryUnregisterRequest, nothing),
        paths.CUDA_SHARED_MEMORY_STATUS: (pb.CudaSharedMemoryStatusRequest, no_cuda),
        paths.CUDA_SHARED_MEMORY_REGISTER: (pb.CudaSharedMemoryRegisterRequest, refuse),
        paths.CUDA_SHARED_MEMORY_UNREGISTER: (pb.CudaSharedMemoryUnregisterRequest, nothing),
    }


def _settings() -> dict[str, Method]:
    return {
        paths.TRACE_SETTING: (pb.TraceSettingRequest, trace_setting),
        paths.LOG_SETTINGS: (pb.LogSettingsRequest, log_settings),
    }


async def trace_setting(request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
    """Tracing as it is: off. Raises Unsupported where it is to be changed."""
    if request.settings:
        raise errors.Unsupported(NO_TRACE_CHANGES)
    told = pb.TraceSettingResponse()
    for key, values in TRACE.items():
        told.settings[key].value.extend(values)
    return told


async def log_settings(request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
    """Logging as it is. Raises Unsupported where it is to be changed."""
    if request.settings:
        raise errors.Unsupported(NO_LOG_CHANGES)
    told = pb.LogSettingsResponse()
    for key, found in LOG.items():
        setting = told.settings[key]
        if isinstance(found, bool):
            setting.bool_param = found
        elif isinstance(found, int):
            setting.uint32_param = found
        else:
            setting.string_param = found
    return told


def _model_mesh(of: modelmesh.ModelMesh) -> dict[str, Method]:
    return {
        paths.REGISTER_MODEL: (mm.RegisterModelRequest, of.register_model),
        paths.UNREGISTER_MODEL: (mm.UnregisterModelRequest, of.unregister_model),
        paths.GET_MODEL_STATUS: (mm.GetStatusRequest, of.model_status),
        paths.ENSURE_LOADED: (mm.EnsureLoadedRequest, of.ensure_loaded),
        paths.SET_VMODEL: (mm.SetVModelRequest, of.set_vmodel),
        paths.DELETE_VMODEL: (mm.DeleteVModelRequest, of.delete_vmodel),
        paths.GET_VMODEL_STATUS: (mm.GetVModelStatusRequest, of.vmodel_status),
    }
