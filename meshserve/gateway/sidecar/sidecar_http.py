"""The sidecar's HTTP app (ASGI): server metadata, readiness, metrics, and refused large bodies."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Awaitable, Callable
from typing import Any

from starlette import requests, responses, types

from meshserve.gateway.envoy import lua_filter
from meshserve.protocol import llm_errors, paths

SERVER_METADATA: dict[str, Any] = {
    "name": "meshserve",
    "version": importlib.metadata.version("meshserve"),
    "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "statistics"],
}
"""The server metadata of the Open Inference Protocol, the same over REST and gRPC."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class SidecarHttp:
    """Answers with the present values of `is_ready`, `metrics` and `request_bytes_max`."""

    def __init__(
        self,
        is_ready: Callable[[], bool],
        metrics: Callable[[], Awaitable[str]],
        request_bytes_max: Callable[[], int],
    ) -> None:
        self._is_ready = is_ready
        self._request_bytes_max = request_bytes_max
        self._metrics = metrics

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "http":
            answer = await self._answer(requests.Request(scope, receive))
            await answer(scope, receive, send)

    async def _answer(self, request: requests.Request) -> responses.Response:
        method, path = request.method, request.scope["path"].rstrip("/") or paths.ROOT
        turn = request.headers.get(lua_filter.TURN_HEADER)
        if turn in {lua_filter.TOO_LARGE, lua_filter.TOO_LARGE_FOR_LLM}:
            await _discard_body(request)
            return self._refusal(path, is_for_llm=turn == lua_filter.TOO_LARGE_FOR_LLM)
        if method not in {"GET", "HEAD"}:
            return responses.JSONResponse({"error": f"{method} is not what {path} is for"}, 405)
        match path:
            case paths.METRICS:
                return responses.Response(await self._metrics(), media_type=METRICS_TYPE)
            case paths.V2:
                return responses.JSONResponse(SERVER_METADATA)
            # What KServe's V1 client asks for liveness.
            case paths.ROOT:
                return responses.JSONResponse({"status": "alive"})
            case paths.V2_LIVE | paths.HEALTHZ:
                return responses.JSONResponse({"live": True})
            case paths.V2_READY | paths.READYZ:
                is_ready = self._is_ready()
                return responses.JSONResponse({"ready": is_ready}, 200 if is_ready else 503)
        return responses.JSONResponse({"error": f"nothing is served under {path}"}, 404)

    def _refusal(self, path: str, *, is_for_llm: bool) -> responses.Response:
        limit = self._request_bytes_max()
        message = (
            f"the request is larger than the limit of {limit} bytes (gateway.request_bytes_max)"
        )
        error = llm_errors.of_path(path, message, 413) if is_for_llm else {"error": message}
        return responses.JSONResponse(error, 413)


async def _discard_body(request: requests.Request) -> None:
    """Read the body to its end, because many clients read the answer only after sending it all."""
    with contextlib.suppress(requests.ClientDisconnect):
        async for _ in request.stream():
            pass
