"""The sidecar's HTTP app (ASGI): server metadata, readiness, all metrics, and slow refusals."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Awaitable, Callable
from typing import Any

from meshserve.gateway.envoy import lua_filter, openai_errors
from meshserve.protocol import paths

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

SERVER_METADATA: dict[str, Any] = {
    "name": "meshserve",
    "version": importlib.metadata.version("meshserve"),
    "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "statistics"],
}
"""The Open Inference Protocol's server metadata, over REST and gRPC alike."""

TOO_LARGE = (lua_filter.TURN_HEADER.encode(), lua_filter.TOO_LARGE.encode())
TOO_LARGE_FOR_LLM = (lua_filter.TURN_HEADER.encode(), lua_filter.TOO_LARGE_FOR_LLM.encode())
METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class SidecarHttp:
    """The app. It calls `is_ready`, `metrics` and `request_bytes_max` anew for every answer."""

    def __init__(
        self,
        is_ready: Callable[[], bool],
        metrics: Callable[[], Awaitable[str]],
        request_bytes_max: Callable[[], int],
    ) -> None:
        self._is_ready = is_ready
        self._request_bytes_max = request_bytes_max
        self._metrics = metrics

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            return
        method, path, headers = scope["method"], scope["path"], scope["headers"]
        if TOO_LARGE in headers or TOO_LARGE_FOR_LLM in headers:
            await _discard_body(receive)
            await _answer_json(send, 413, self._refusal(is_for_llm=TOO_LARGE_FOR_LLM in headers))
        elif method not in {"GET", "HEAD"}:
            await _answer_json(send, 405, {"error": f"{method} is not what {path} is for"})
        elif path == paths.METRICS:
            await _answer(send, 200, METRICS_TYPE, (await self._metrics()).encode())
        else:
            await _answer_json(send, *self._page(path))

    def _refusal(self, *, is_for_llm: bool) -> dict[str, Any]:
        limit = self._request_bytes_max()
        message = (
            f"the request is larger than the limit of {limit} bytes (gateway.request_bytes_max)"
        )
        return openai_errors.error(message, 413) if is_for_llm else {"error": message}

    def _page(self, path: str) -> tuple[int, dict[str, Any]]:
        match path:
            case paths.V2:
                return 200, SERVER_METADATA
            case paths.V2_LIVE | paths.HEALTHZ:
                return 200, {"live": True}
            case paths.V2_READY | paths.READYZ:
                is_ready = self._is_ready()
                return (200 if is_ready else 503), {"ready": is_ready}
        return 404, {"error": f"nothing is served under {path}"}


async def _discard_body(receive: Receive) -> None:
    while (await receive()).get("more_body", False):
        pass


async def _answer_json(send: Send, status: int, content: dict[str, Any]) -> None:
    await _answer(send, status, b"application/json", json.dumps(content).encode())


async def _answer(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
