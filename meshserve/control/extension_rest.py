"""What Triton's clients ask over REST beside models: shared memory, trace settings, log settings."""

from __future__ import annotations

from meshserve import errors
from meshserve.control import grpc_methods, web

SYSTEM_MEMORY = "/v2/systemsharedmemory/"
CUDA_MEMORY = "/v2/cudasharedmemory/"
TRACE = "/v2/trace/setting"
LOG = "/v2/logging"


async def shared_memory(request: web.Request) -> web.Answer | None:
    """No region is ever there, and none can be registered. Raises Unsupported."""
    match request.method, request.path.rpartition("/")[2]:
        case "GET", "status":
            return web.json_answer([])
        case "POST", "unregister":
            return web.json_answer({})
        case "POST", "register":
            raise errors.Unsupported(grpc_methods.NO_SHARED_MEMORY)
    return None


async def trace(request: web.Request) -> web.Answer | None:
    """Tracing as it is. Raises Unsupported where it is to be changed."""
    if request.path != TRACE:
        return None
    _refuse_changes(request, grpc_methods.NO_TRACE_CHANGES)
    return web.json_answer({key: values if key == "trace_level" else values[0] for key, values in grpc_methods.TRACE.items()})


async def log(request: web.Request) -> web.Answer | None:
    """Logging as it is. Raises Unsupported where it is to be changed."""
    if request.path != LOG:
        return None
    _refuse_changes(request, grpc_methods.NO_LOG_CHANGES)
    return web.json_answer(grpc_methods.LOG)


def _refuse_changes(request: web.Request, why: str) -> None:
    if request.method == "POST" and request.json():
        raise errors.Unsupported(why)
