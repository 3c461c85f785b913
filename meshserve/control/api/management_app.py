"""The controller's ASGI app: management over gRPC (bridged by Envoy) and REST, metrics, health."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from meshserve import errors
from meshserve.control import admin_service
from meshserve.control.api import (
    hold_endpoint,
    http_messages,
    mesh_metrics,
    mesh_v1,
    openai_models,
    triton_extensions,
    triton_repository_rest,
)
from meshserve.control.api import management_grpc as methods
from meshserve.protocol import error_responses, paths

logger = logging.getLogger(__name__)
Rest = Callable[[http_messages.HttpRequest], Awaitable[http_messages.HttpAnswer | None]]


class ManagementApp:
    """One app for everything that is not inference. Every error becomes an answer; none gets out."""

    def __init__(
        self, of: admin_service.AdminService, held: hold_endpoint.HoldEndpoint, files_dir: str
    ) -> None:
        self._grpc = methods.ManagementMethods(of, files_dir)
        self._metrics = mesh_metrics.MeshMetrics(of.controller)
        self._waiting_room = held
        rest = triton_repository_rest.TritonRepositoryRest(of, files_dir)
        listed = openai_models.ModelList(of.view)
        self._rest: dict[str, Rest] = {
            paths.MESH_V1: mesh_v1.MeshApi(of).answer,
            paths.V2_REPOSITORY: rest.answer,
            paths.V2_STATISTICS: rest.statistics,
            paths.V2_SYSTEM_SHARED_MEMORY: triton_extensions.shared_memory,
            paths.V2_CUDA_SHARED_MEMORY: triton_extensions.shared_memory,
            paths.V2_TRACE_SETTING: triton_extensions.trace,
            paths.V2_LOGGING: triton_extensions.log,
            paths.OPENAI_MODELS: listed.answer,
            paths.PREFIXED_OPENAI_MODELS: listed.answer,
            paths.METRICS: self._metrics_text,
            paths.HEALTHZ: self._health,
        }

    async def __call__(
        self, scope: http_messages.Scope, receive: http_messages.Receive, send: http_messages.Send
    ) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        is_grpc = headers.get(b"content-type", b"").startswith(b"application/grpc")
        try:
            request = await http_messages.read(scope, receive)
            answer = await self._answer(request, receive, is_grpc=is_grpc)
        except errors.MeshError as error:
            answer = grpc_refusal(error) if is_grpc else http_messages.refusal(error)
        except Exception as error:
            # Our own mistake in one request is that request's answer, and a line in the log.
            logger.exception("%s failed", scope["path"])
            ours = errors.MeshError(f"the controller failed: {type(error).__name__}")
            answer = grpc_refusal(ours) if is_grpc else http_messages.refusal(ours)
        if answer is not None:
            await http_messages.write(send, answer)

    async def _answer(
        self, request: http_messages.HttpRequest, receive: http_messages.Receive, *, is_grpc: bool
    ) -> http_messages.HttpAnswer | None:
        """The answer; nothing where the client has left meanwhile."""
        if is_grpc:
            return await self._grpc_answer(request)
        if request.path == paths.HOLD:
            return await self._waiting_room.wait(request, receive)
        return await self._rest_answer(request)

    async def _grpc_answer(self, request: http_messages.HttpRequest) -> http_messages.HttpAnswer:
        return http_messages.HttpAnswer(
            await self._grpc.answer(request), headers=(error_responses.GRPC_TYPE,)
        )

    async def _rest_answer(self, request: http_messages.HttpRequest) -> http_messages.HttpAnswer:
        for prefix, answer in self._rest.items():
            if request.path.startswith(prefix):
                found = await answer(request)
                if found is not None:
                    return found
        return http_messages.HttpAnswer(b'{"error":"there is no such path and method"}', 404)

    async def _metrics_text(self, _: http_messages.HttpRequest) -> http_messages.HttpAnswer:
        return http_messages.text_answer(self._metrics.text())

    async def _health(self, _: http_messages.HttpRequest) -> http_messages.HttpAnswer:
        return http_messages.text_answer("ok\n")


def grpc_refusal(error: errors.MeshError) -> http_messages.HttpAnswer:
    """A gRPC error."""
    status, headers, body = error_responses.grpc_error(error)
    return http_messages.HttpAnswer(body, status, tuple(headers))
