"""The REST paths that a worker answers: V2 and V1, those about one model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import orjson

from meshserve import errors
from meshserve.protocol import error_responses, model_description, rest, v1
from meshserve.worker.http import compression, inference_request, inference_service

PREDICT = ":predict"


class InferenceRest:
    """Answers `/v2/models/{m}[/versions/{v}][/infer|ready|config|stats]` and `/v1/models/{m}[/versions/{v}][:predict]`."""

    def __init__(self, on: inference_service.InferenceService) -> None:
        self._on = on
        self._gets: dict[
            str,
            Callable[
                [str, str, inference_request.InferenceRequest], Awaitable[inference_request.Answer]
            ],
        ] = {
            "": self._metadata,
            "ready": self._ready,
            "config": self._config,
            "stats": self._stats,
        }

    async def answer(self, request: inference_request.InferenceRequest) -> inference_request.Answer:
        """The answer to a request. Raises every error that it can end with."""
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        match parts:
            case ["v2", "models", name, "versions", version, *rest_]:
                return await self._v2(name, version, "/".join(rest_), request)
            case ["v2", "models", name, *rest_]:
                return await self._v2(name, "", "/".join(rest_), request)
            case ["v1", "models", name, "versions", version]:
                return await self._v1(name, version.removesuffix(PREDICT), request)
            case ["v1", "models", name]:
                return await self._v1(name.removesuffix(PREDICT), "", request)
            case _:
                raise errors.ModelNotFound(f"there is nothing at {request.path}")

    async def _v2(
        self, name: str, version: str, what: str, request: inference_request.InferenceRequest
    ) -> inference_request.Answer:
        if what == "infer" and request.method == "POST":
            return await self._infer(name, version, request)
        get = self._gets.get(what)
        if get is None or request.method != "GET":
            raise errors.ModelNotFound(f"there is no {request.method} {request.path}")
        return await get(name, version, request)

    async def _infer(
        self, name: str, version: str, request: inference_request.InferenceRequest
    ) -> inference_request.Answer:
        asked = rest.decode_infer(
            compression.inflated(request.body, request.headers), request.headers
        )
        asked.call.model, asked.call.version = name, version
        reply = await self._on.infer(asked.call, request.expires_s)
        headers, body = rest.encode_infer(reply, asked)
        return 200, headers, body

    async def _metadata(
        self, name: str, version: str, request: inference_request.InferenceRequest
    ) -> inference_request.Answer:
        return _json(
            model_description.metadata_json(
                await self._on.described(name, version, request.expires_s)
            )
        )

    async def _config(
        self, name: str, version: str, request: inference_request.InferenceRequest
    ) -> inference_request.Answer:
        return _json(
            model_description.config_json(
                await self._on.described(name, version, request.expires_s)
            )
        )

    async def _ready(
        self, name: str, version: str, _request: inference_request.InferenceRequest
    ) -> inference_request.Answer:
        is_ready = self._on.is_ready(name, version)
        return _json({"name": name, "ready": is_ready}, 200 if is_ready else 424)

    async def _stats(
        self, name: str, version: str, _request: inference_request.InferenceRequest
    ) -> inference_request.Answer:
        return _json(model_description.statistics_json(self._on.statistics(name, version)))

    async def _v1(
        self, name: str, version: str, request: inference_request.InferenceRequest
    ) -> inference_request.Answer:
        if not unquote(request.path).endswith(PREDICT):
            return _json({"name": name, "ready": self._on.is_ready(name, version)})
        if request.method != "POST":
            raise errors.ModelNotFound(f"there is no {request.method} {request.path}")
        about = await self._on.described(name, version, request.expires_s)
        call, by_rows = v1.decode_predict(
            compression.inflated(request.body, request.headers), about.signature
        )
        call.model, call.version = name, version
        reply = await self._on.infer(call, request.expires_s)
        return 200, [error_responses.JSON_TYPE], v1.encode_predict(reply, by_rows=by_rows)


def _json(document: Any, status: int = 200) -> inference_request.Answer:
    return status, [error_responses.JSON_TYPE], orjson.dumps(document)
