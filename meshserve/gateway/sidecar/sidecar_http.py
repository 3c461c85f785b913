"""The node's own pages: what the server is, whether it is ready, everybody's metrics; and refusals that take a while. Raw ASGI."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from meshserve.gateway.envoy import lua_filter, openai_errors
from meshserve.gateway.sidecar import server_metadata
from meshserve.protocol import paths

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
TURN_HEADER = lua_filter.TURN_HEADER.encode()
TOO_LARGE = (TURN_HEADER, lua_filter.TOO_LARGE.encode())
TOO_LARGE_FOR_LLM = (TURN_HEADER, lua_filter.TOO_LARGE_FOR_LLM.encode())
METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class SidecarHttp:
    """Asks `is_ready`, `metrics` and `request_bytes_max` anew for every answer."""

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
        if TOO_LARGE in scope["headers"] or TOO_LARGE_FOR_LLM in scope["headers"]:
            await _thrown_away(receive)
            words = f"the request is larger than the limit of {self._request_bytes_max()} bytes (gateway.request_bytes_max)"
            await _answer_json(
                send,
                413,
                openai_errors.error(words, 413)
                if TOO_LARGE_FOR_LLM in scope["headers"]
                else {"error": words},
            )
        elif scope["method"] not in {"GET", "HEAD"}:
            await _answer_json(
                send, 405, {"error": f"{scope['method']} is not what {scope['path']} is for"}
            )
        elif scope["path"] == paths.METRICS:
            await _answer(send, 200, METRICS_TYPE, (await self._metrics()).encode())
        else:
            await _answer_json(send, *self._fact(scope["path"]))

    def _fact(self, path: str) -> tuple[int, dict[str, Any]]:
        match path:
            case paths.V2:
                return 200, {
                    "name": server_metadata.NAME,
                    "version": server_metadata.VERSION,
                    "extensions": list(server_metadata.EXTENSIONS),
                }
            case paths.V2_LIVE | paths.HEALTHZ:
                return 200, {"live": True}
            case paths.V2_READY | paths.READYZ:
                return (200 if self._is_ready() else 503), {"ready": self._is_ready()}
        return 404, {"error": f"nothing is served under {path}"}


async def _thrown_away(receive: Receive) -> None:
    while (await receive()).get("more_body", False):
        pass


async def _answer_json(send: Send, status: int, fact: dict[str, Any]) -> None:
    await _answer(send, status, b"application/json", json.dumps(fact).encode())


async def _answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
