"""The controller's ASGI app: management over gRPC (bridged by Envoy) and REST, metrics, health."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from meshserve import errors
from meshserve.control import clerk, extension_rest, mesh_api, metrics, openai, repository_rest, waiting_room, web
from meshserve.control import grpc_methods as methods
from meshserve.protocol import faults

logger = logging.getLogger(__name__)
Rest = Callable[[web.Request], Awaitable[web.Answer | None]]


class ControlApp:
    """One app for everything that is not inference. Every error becomes an answer; none gets out."""

    def __init__(self, of: clerk.Clerk, files_dir: str) -> None:
        self._grpc = methods.Methods(of, files_dir)
        self._metrics = metrics.Metrics(of.controller)
        self._waiting_room = of.controller.waiting_room
        rest = repository_rest.RepositoryRest(of, files_dir)
        listed = openai.ModelList(of.mesh)
        self._rest: dict[str, Rest] = {
            mesh_api.PREFIX: mesh_api.MeshApi(of).answer,
            repository_rest.PREFIX: rest.answer,
            repository_rest.STATISTICS: rest.statistics,
            extension_rest.SYSTEM_MEMORY: extension_rest.shared_memory,
            extension_rest.CUDA_MEMORY: extension_rest.shared_memory,
            extension_rest.TRACE: extension_rest.trace,
            extension_rest.LOG: extension_rest.log,
            openai.MODELS: listed.answer,
            openai.OTHER_MODELS: listed.answer,
            "/metrics": self._metrics_text,
            "/healthz": self._health,
        }

    async def __call__(self, scope: web.Scope, receive: web.Receive, send: web.Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        is_grpc = headers.get(b"content-type", b"").startswith(b"application/grpc")
        try:
            request = await web.read(scope, receive)
            answer = await self._answer(request, receive, is_grpc=is_grpc)
        except errors.MeshError as error:
            answer = grpc_refusal(error) if is_grpc else web.refusal(error)
        except Exception as error:
            # Our own mistake in one request is that request's answer, and a line in the log.
            logger.exception("%s failed", scope["path"])
            ours = errors.MeshError(f"the controller failed: {type(error).__name__}")
            answer = grpc_refusal(ours) if is_grpc else web.refusal(ours)
        if answer is not None:
            await web.write(send, answer)

    async def _answer(self, request: web.Request, receive: web.Receive, *, is_grpc: bool) -> web.Answer | None:
        """The answer; nothing where the client has left meanwhile."""
        if is_grpc:
            return await self._grpc_answer(request)
        if request.path == waiting_room.PATH:
            return await self._waiting_room.wait(request, receive)
        return await self._rest_answer(request)

    async def _grpc_answer(self, request: web.Request) -> web.Answer:
        return web.Answer(await self._grpc.answer(request), headers=(faults.GRPC_TYPE,))

    async def _rest_answer(self, request: web.Request) -> web.Answer:
        for prefix, answer in self._rest.items():
            if request.path.startswith(prefix):
                found = await answer(request)
                if found is not None:
                    return found
        return web.Answer(b'{"error":"there is no such path and method"}', 404)

    async def _metrics_text(self, _: web.Request) -> web.Answer:
        return web.text_answer(self._metrics.text())

    async def _health(self, _: web.Request) -> web.Answer:
        return web.text_answer("ok\n")


def grpc_refusal(error: errors.MeshError) -> web.Answer:
    """A gRPC error."""
    status, headers, body = faults.grpc_error(error)
    return web.Answer(body, status, tuple(headers))
