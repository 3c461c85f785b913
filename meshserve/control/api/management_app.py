"""The controller's ASGI app: management over REST and Envoy-bridged gRPC, metrics and health."""

from __future__ import annotations

from typing import Any

from prometheus_client import exposition
from starlette import routing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from meshserve.control import admin_service, caller, figures_file
from meshserve.control.api import (
    call_log,
    event_list,
    hold_endpoint,
    management_grpc,
    mesh_metrics,
    mesh_v1,
    openai_models,
    rest_routes,
    triton_extensions,
    triton_repository,
)
from meshserve.protocol import error_responses, paths


class ManagementApp:
    """Answers every request that is not inference. Errors become answers, never exceptions."""

    def __init__(
        self,
        service: admin_service.AdminService,
        held: hold_endpoint.HoldEndpoint,
        files_dir: str,
        figures: figures_file.FiguresFile,
    ) -> None:
        repository = triton_repository.TritonRepository(service, files_dir)
        grpc = management_grpc.ManagementMethods(service, repository)
        self._grpc = routing.request_response(
            rest_routes.answering(grpc.answer, error_responses.grpc_error)
        )
        self._metrics = mesh_metrics.MeshMetrics(service.controller, figures)
        self._rest = Starlette(
            routes=[
                *mesh_v1.MeshApi(service).routes(),
                *event_list.EventList(service.controller).routes(),
                *triton_repository.routes(repository),
                *triton_extensions.routes(),
                *openai_models.ModelList(service.view).routes(),
                rest_routes.route("POST", paths.HOLD, held.wait),
                rest_routes.route("GET", paths.METRICS, self._answer_metrics),
                rest_routes.route("GET", paths.HEALTHZ, _answer_health),
            ],
            # The API's contract: a known path with a wrong method is 404, not 405.
            exception_handlers={404: _answer_not_found, 405: _answer_not_found},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; other protocols are ignored."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        # The type may name the encoding of messages too: `application/grpc+proto`.
        is_grpc = headers.get(b"content-type", b"").startswith(b"application/grpc")
        app = self._grpc if is_grpc else self._rest
        # Envoy drops what a client writes into this header, and sets it from the client's key.
        client = headers.get(paths.CLIENT_HEADER.encode(), b"").decode("latin-1")
        if call_log.is_change(scope):
            send = call_log.CallLog(scope, send).send
        with caller.named(client):
            await app({**scope, "path": _quoted_path(scope)}, receive, send)

    async def _answer_metrics(self, _: Request) -> Response:
        return PlainTextResponse(
            self._metrics.text(), headers={"content-type": exposition.CONTENT_TYPE_LATEST}
        )


def _quoted_path(scope: Scope) -> str:
    """Return the path as the client wrote it, without a slash at its end.

    ASGI's `path` is unquoted already, which turns the name `a%2Fb` into two segments.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("latin-1").partition("?")[0].rstrip("/") or "/"


async def _answer_health(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _answer_not_found(_: Request, __: Any) -> Response:
    return rest_routes.json_response({"error": "there is no such path and method"}, 404)
