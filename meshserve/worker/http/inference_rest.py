"""The REST paths of one model: V2 (Open Inference Protocol) and V1 (TensorFlow Serving)."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import unquote

import orjson

from meshserve import errors
from meshserve.protocol import (
    error_responses,
    http_protocol,
    inference,
    model_description,
    rest,
    v1,
)
from meshserve.worker.http import worker_app
from meshserve.worker.models import model_host

PREDICT = ":predict"
JSON_HEADERS = (error_responses.JSON_TYPE,)

INFLATED_BYTES_MAX = 256 << 20
"""Limit of a body after decompression; the gateway's limit sees only what was sent."""

ANY_WINDOW = zlib.MAX_WBITS | 32
"""Makes zlib find out itself whether a header is gzip's or zlib's."""

CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})

Get = Callable[[str, str, worker_app.InferenceRequest], Awaitable[http_protocol.Answer]]


class InferenceRest:
    """Answers the paths of one model.

    They are `/v2/models/{m}[/versions/{v}][/infer|ready|config|stats]` and
    `/v1/models/{m}[/versions/{v}][:predict]`.
    """

    def __init__(self, host: model_host.ModelHost) -> None:
        self._host = host
        self._gets: dict[str, Get] = {
            "": self._metadata,
            "ready": self._ready,
            "config": self._config,
            "stats": self._stats,
        }

    async def answer(self, request: worker_app.InferenceRequest) -> http_protocol.Answer:
        """Answer a request. Raises ModelNotFound for other paths, or as `ModelHost.infer` does."""
        path = request.path.decode("latin-1")
        # Split first: a quoted name may hold slashes.
        parts = [unquote(part) for part in path.strip("/").split("/")]
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
                raise errors.ModelNotFound(f"there is nothing at {path}")

    async def _v2(
        self, name: str, version: str, what: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        if what == "infer" and request.method == "POST":
            return await self._infer(name, version, request)
        get = self._gets.get(what)
        if get is None or request.method != "GET":
            raise _no_such_method(request)
        return await get(name, version, request)

    async def _infer(
        self, name: str, version: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        rest_call = rest.decode_infer(inflate(request.body, request.headers), request.headers)
        rest_call.call.model, rest_call.call.version = name, version
        reply = await self._reply(rest_call.call, request.expires_s)
        headers, body = rest.encode_infer(reply, rest_call)
        return 200, headers, body

    async def _reply(self, call: inference.InferCall, expires_s: float) -> inference.InferReply:
        outcome = self._host.infer(call, expires_s)
        return outcome if isinstance(outcome, inference.InferReply) else await outcome

    async def _metadata(
        self, name: str, version: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        description = await self._host.describe(name, version, request.expires_s)
        return _json(model_description.metadata_json(description))

    async def _config(
        self, name: str, version: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        description = await self._host.describe(name, version, request.expires_s)
        return _json(model_description.config_json(description))

    async def _ready(
        self, name: str, version: str, _request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        is_ready = self._host.is_ready(name, version)
        return _json({"name": name, "ready": is_ready}, 200 if is_ready else 424)

    async def _stats(
        self, name: str, version: str, _request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        return _json(model_description.statistics_json(self._host.statistics(name, version)))

    async def _v1(
        self, name: str, version: str, request: worker_app.InferenceRequest
    ) -> http_protocol.Answer:
        if not unquote(request.path.decode("latin-1")).endswith(PREDICT):
            return _json({"name": name, "ready": self._host.is_ready(name, version)})
        if request.method != "POST":
            raise _no_such_method(request)
        # V1's tensors have no datatypes: the body can't be read before the model is loaded.
        description = await self._host.describe(name, version, request.expires_s)
        body = inflate(request.body, request.headers)
        call, by_rows = v1.decode_predict(body, description.signature)
        call.model, call.version = name, version
        reply = await self._reply(call, request.expires_s)
        return 200, JSON_HEADERS, v1.encode_predict(reply, by_rows=by_rows)


def _no_such_method(request: worker_app.InferenceRequest) -> errors.ModelNotFound:
    path = request.path.decode("latin-1")
    return errors.ModelNotFound(f"there is no {request.method} {path}")


def _json(document: Any, status: int = 200) -> http_protocol.Answer:
    return status, JSON_HEADERS, orjson.dumps(document)


def inflate(body: bytes, headers: Iterable[http_protocol.Header]) -> bytes:
    """Return the body decompressed as `content-encoding` says; over gRPC the gateway does that.

    Raises InvalidRequest for other codings and broken bodies, PayloadTooLarge above the limit.
    """
    coding = next(
        (value.strip().lower() for name, value in headers if name == b"content-encoding"), b""
    )
    if coding in (b"identity", b""):
        return body
    if coding not in CODINGS:
        raise errors.InvalidRequest(
            f"content-encoding {coding.decode('latin-1')!r} is unknown; there are: gzip, deflate"
        )
    inflater = zlib.decompressobj(ANY_WINDOW)
    try:
        inflated = inflater.decompress(body, INFLATED_BYTES_MAX)
    except zlib.error:
        raise errors.InvalidRequest(
            f"the body is not {coding.decode()}, as its content-encoding says"
        ) from None
    # What lies beyond the limit was not decompressed: a small body can't fill the memory.
    if inflater.unconsumed_tail:
        raise errors.PayloadTooLarge(f"the body unpacks to more than {INFLATED_BYTES_MAX} bytes")
    if not inflater.eof:
        raise errors.InvalidRequest("the compressed body was cut short")
    return inflated
