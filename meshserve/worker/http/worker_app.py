"""The worker's ASGI app: takes a request apart, has it answered, and says what came of it. gRPC comes bridged to HTTP/1.1 by Envoy."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from meshserve import errors
from meshserve.protocol import error_responses, http_protocol, paths
from meshserve.worker.http import (
    inference_grpc,
    inference_request,
    inference_rest,
    inference_service,
    worker_metrics,
    worker_stats,
)
from meshserve.worker.models import model_host

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
logger = logging.getLogger(__name__)


class WorkerApp:
    """One worker's requests. `is_synced`: it has its catalog. While it is not, or drains, it sends every request away with 503.

    `at_once`: what may be answered without a task, by path, for `serving.serve`.
    """

    def __init__(self, of: model_host.ModelHost, worker_id: str) -> None:
        self.is_synced = False
        self.is_draining = False
        self.load = worker_stats.WorkerLoad()
        self._host = of
        self._worker_id = worker_id
        inferences = inference_service.InferenceService(of)
        self._methods = inference_grpc.methods(inferences)
        self._methods_at_once = inference_grpc.at_once(inferences)
        self.at_once = {
            path: functools.partial(self._answer_at_once, path) for path in self._methods_at_once
        }
        self._rest = inference_rest.InferenceRest(inferences)
        self._idle = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        path: str = scope["path"]
        if path == paths.HEALTHZ:
            await _send(send, self._health())
        elif path == paths.METRICS:
            await _send(send, worker_metrics.answer(self._host, self.load, self._worker_id))
        elif self.is_draining or not self.is_synced:
            await _send(
                send,
                error_responses.rest_error(
                    errors.Unavailable("the worker is draining or starting")
                ),
            )
        else:
            await self._serve(scope, receive, send)

    def _answer_at_once(
        self, path: bytes, headers: Sequence[error_responses.Header], body: bytes
    ) -> http_protocol.Answer | None:
        """The answer if it takes no waiting, else nothing; nothing for failures too, of which nothing has been counted."""
        if self.is_draining or not self.is_synced:
            return None
        began_s = time.perf_counter()
        try:
            message = self._methods_at_once[path](
                inference_request.InferenceRequest("POST", path, headers, body)
            )
        except Exception:  # noqa: BLE001 - asked once more in the usual way, it fails again, and is told and counted there
            return None
        if message is None:
            return None
        self.load.answered(time.perf_counter() - began_s)
        return 200, inference_request.GRPC_HEADERS, message

    async def wait_until_idle(self) -> None:
        """Return once every request that came is answered."""
        while self.load.in_flight:
            self._idle.clear()
            await self._idle.wait()

    def _health(self) -> inference_request.Answer:
        is_up = self.is_synced and not self.is_draining
        return (
            200 if is_up else 503,
            [(b"content-type", b"text/plain")],
            b"ok" if is_up else b"not ready",
        )

    async def _serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        load = self.load
        load.in_flight += 1
        began_s = time.perf_counter()
        try:
            body = await _body(receive)
            if body is not None:
                await _send(send, await self._answer(scope, body))
        finally:
            load.in_flight -= 1
            if not load.in_flight:
                self._idle.set()
            load.answered(time.perf_counter() - began_s)

    async def _answer(self, scope: dict[str, Any], body: bytes) -> inference_request.Answer:
        method = self._methods.get(scope["path"])
        tell = error_responses.rest_error if method is None else error_responses.grpc_error
        try:
            request = inference_request.InferenceRequest(
                scope["method"],
                scope.get("raw_path") or scope["path"].encode(),
                scope["headers"],
                body,
            )
            if method is None:
                return await self._rest.answer(request)
            return 200, inference_request.GRPC_HEADERS, await method(request)
        except errors.MeshError as error:
            self.load.failed(type(error).__name__)
            return tell(error)
        except Exception as error:
            # Our own mistake in one request is that request's answer, and a line in the log.
            logger.exception("%s failed", scope["path"])
            self.load.failed(type(error).__name__)
            return tell(errors.MeshError(f"the worker failed: {type(error).__name__}"))


async def _body(receive: Receive) -> bytes | None:
    """The whole body; nothing where the caller left before it was here."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _send(send: Send, answer: inference_request.Answer) -> None:
    status, headers, body = answer
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})
