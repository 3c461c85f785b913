"""Triton's extensions for shared memory, trace settings and log settings.

Clients can read fixed settings; every change is refused with a reason.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import message
from starlette.requests import Request
from starlette.routing import Route

from meshserve import errors
from meshserve.control.api import rest_routes
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
    async def status(_: Request) -> object:
        return []

    async def unregister(_: Request) -> object:
        return {}

    async def register(_: Request) -> object:
        raise errors.Unsupported(NO_SHARED_MEMORY)

    region = f"{prefix}region/{{region:name}}/"
    return [
        rest_routes.route("GET", f"{prefix}status", status),
        rest_routes.route("GET", f"{region}status", status),
        rest_routes.route("POST", f"{prefix}unregister", unregister),
        rest_routes.route("POST", f"{region}unregister", unregister),
        rest_routes.route("POST", f"{region}register", register),
    ]


def _settings_routes(path: str, settings: object, reason: str) -> list[Route]:
    async def show(_: Request) -> object:
        return settings

    async def change(request: Request) -> object:
        if await rest_routes.read_json(request):
            raise errors.Unsupported(reason)
        return settings

    return [rest_routes.route("GET", path, show), rest_routes.route("POST", path, change)]


# gRPC


def _always(answer: message.Message) -> Perform:
    async def perform(_: message.Message) -> message.Message:
        return answer

    return perform


async def _refuse_shared_memory(_: message.Message) -> message.Message:
    raise errors.Unsupported(NO_SHARED_MEMORY)


async def _trace_setting(request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
    # Triton's client reads the settings by a request that changes none.
    if request.settings:
        raise errors.Unsupported(NO_TRACE_CHANGES)
    answer = pb.TraceSettingResponse()
    for key, values in TRACE.items():
        answer.settings[key].value.extend(values)
    return answer


async def _log_settings(request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
    # As for traces, Triton's client reads the settings by a request that changes none.
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


def _method(path: str, perform: Perform) -> dict[str, tuple[type[message.Message], Perform]]:
    """Return an entry of GRPC_METHODS. In the protocol a request is named after its method."""
    return {path: (getattr(pb, f"{paths.method_name(path)}Request"), perform)}


GRPC_METHODS: dict[str, tuple[type[message.Message], Perform]] = {
    **_method(paths.SYSTEM_SHARED_MEMORY_STATUS, _always(pb.SystemSharedMemoryStatusResponse())),
    **_method(paths.SYSTEM_SHARED_MEMORY_REGISTER, _refuse_shared_memory),
    **_method(
        paths.SYSTEM_SHARED_MEMORY_UNREGISTER, _always(pb.SystemSharedMemoryUnregisterResponse())
    ),
    **_method(paths.CUDA_SHARED_MEMORY_STATUS, _always(pb.CudaSharedMemoryStatusResponse())),
    **_method(paths.CUDA_SHARED_MEMORY_REGISTER, _refuse_shared_memory),
    **_method(
        paths.CUDA_SHARED_MEMORY_UNREGISTER, _always(pb.CudaSharedMemoryUnregisterResponse())
    ),
    **_method(paths.TRACE_SETTING, _trace_setting),
    **_method(paths.LOG_SETTINGS, _log_settings),
}
