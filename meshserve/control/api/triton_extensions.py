"""Triton's extensions beside models: shared memory, trace settings and log settings.

None of them can be changed: clients get the fixed settings, and a reason for every change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshserve import errors
from meshserve.control.api import rest
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb

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
Perform = Callable[[Any], Awaitable[message.Message]]


# REST


def routes() -> list[Route]:
    """Return the routes of all three extensions."""
    shown = {key: values if key == "trace_level" else values[0] for key, values in TRACE.items()}
    return [
        *_shared_memory_routes(paths.V2_SYSTEM_SHARED_MEMORY),
        *_shared_memory_routes(paths.V2_CUDA_SHARED_MEMORY),
        *_settings_routes(paths.V2_TRACE_SETTING, shown, NO_TRACE_CHANGES),
        *_settings_routes(paths.V2_LOGGING, LOG, NO_LOG_CHANGES),
    ]


def _shared_memory_routes(prefix: str) -> list[Route]:
    async def status(_: Request) -> Response:
        return rest.json_response([])

    async def unregister(_: Request) -> Response:
        return rest.json_response({})

    async def register(_: Request) -> Response:
        raise errors.Unsupported(NO_SHARED_MEMORY)

    region = f"{prefix}region/{{region:name}}/"
    return [
        rest.route("GET", f"{prefix}status", status),
        rest.route("GET", f"{region}status", status),
        rest.route("POST", f"{prefix}unregister", unregister),
        rest.route("POST", f"{region}unregister", unregister),
        rest.route("POST", f"{region}register", register),
    ]


def _settings_routes(path: str, settings: object, reason: str) -> list[Route]:
    async def show(_: Request) -> Response:
        return rest.json_response(settings)

    async def change(request: Request) -> Response:
        if await rest.read_json(request):
            raise errors.Unsupported(reason)
        return rest.json_response(settings)

    return [rest.route("GET", path, show), rest.route("POST", path, change)]


# gRPC


def _always(answer: message.Message) -> Perform:
    async def perform(_: message.Message) -> message.Message:
        return answer

    return perform


async def _refuse_shared_memory(_: message.Message) -> message.Message:
    raise errors.Unsupported(NO_SHARED_MEMORY)


async def _trace_setting(request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
    if request.settings:
        raise errors.Unsupported(NO_TRACE_CHANGES)
    answer = pb.TraceSettingResponse()
    for key, values in TRACE.items():
        answer.settings[key].value.extend(values)
    return answer


async def _log_settings(request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
    if request.settings:
        raise errors.Unsupported(NO_LOG_CHANGES)
    answer = pb.LogSettingsResponse()
    for key, value in LOG.items():
        setting = answer.settings[key]
        if isinstance(value, bool):
            setting.bool_param = value
        elif isinstance(value, int):
            setting.uint32_param = value
        else:
            setting.string_param = value
    return answer


GRPC_METHODS: dict[str, tuple[type[message.Message], Perform]] = {
    paths.SYSTEM_SHARED_MEMORY_STATUS: (
        pb.SystemSharedMemoryStatusRequest,
        _always(pb.SystemSharedMemoryStatusResponse()),
    ),
    paths.SYSTEM_SHARED_MEMORY_REGISTER: (
        pb.SystemSharedMemoryRegisterRequest,
        _refuse_shared_memory,
    ),
    paths.SYSTEM_SHARED_MEMORY_UNREGISTER: (
        pb.SystemSharedMemoryUnregisterRequest,
        _always(pb.SystemSharedMemoryUnregisterResponse()),
    ),
    paths.CUDA_SHARED_MEMORY_STATUS: (
        pb.CudaSharedMemoryStatusRequest,
        _always(pb.CudaSharedMemoryStatusResponse()),
    ),
    paths.CUDA_SHARED_MEMORY_REGISTER: (
        pb.CudaSharedMemoryRegisterRequest,
        _refuse_shared_memory,
    ),
    paths.CUDA_SHARED_MEMORY_UNREGISTER: (
        pb.CudaSharedMemoryUnregisterRequest,
        _always(pb.CudaSharedMemoryUnregisterResponse()),
    ),
    paths.TRACE_SETTING: (pb.TraceSettingRequest, _trace_setting),
    paths.LOG_SETTINGS: (pb.LogSettingsRequest, _log_settings),
}
