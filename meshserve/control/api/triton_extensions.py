"""What Triton's clients ask over REST beside models: shared memory, trace settings, log settings."""

from __future__ import annotations

from meshserve import errors
from meshserve.control.api import http_messages, management_grpc
from meshserve.protocol import paths


async def shared_memory(request: http_messages.HttpRequest) -> http_messages.HttpAnswer | None:
    """No region is ever there, and none can be registered. Raises Unsupported."""
    match request.method, request.path.rpartition("/")[2]:
        case "GET", "status":
            return http_messages.json_answer([])
        case "POST", "unregister":
            return http_messages.json_answer({})
        case "POST", "register":
            raise errors.Unsupported(management_grpc.NO_SHARED_MEMORY)
    return None


async def trace(request: http_messages.HttpRequest) -> http_messages.HttpAnswer | None:
    """Tracing as it is. Raises Unsupported where it is to be changed."""
    if request.path != paths.V2_TRACE_SETTING:
        return None
    _refuse_changes(request, management_grpc.NO_TRACE_CHANGES)
    return http_messages.json_answer(
        {
            key: values if key == "trace_level" else values[0]
            for key, values in management_grpc.TRACE.items()
        }
    )


async def log(request: http_messages.HttpRequest) -> http_messages.HttpAnswer | None:
    """Logging as it is. Raises Unsupported where it is to be changed."""
    if request.path != paths.V2_LOGGING:
        return None
    _refuse_changes(request, management_grpc.NO_LOG_CHANGES)
    return http_messages.json_answer(management_grpc.LOG)


def _refuse_changes(request: http_messages.HttpRequest, why: str) -> None:
    if request.method == "POST" and request.json():
        raise errors.Unsupported(why)
