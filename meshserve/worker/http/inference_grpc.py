"""The gRPC methods that a worker answers: those about one model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from meshserve import errors
from meshserve.protocol import inference, model_description, paths
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.worker.http import inference_request, inference_service

M = TypeVar("M", bound=Message)
Method = Callable[[inference_request.InferenceRequest], Awaitable[bytes]]
AtOnce = Callable[[inference_request.InferenceRequest], bytes | None]
"""Gives nothing where it would have to wait, and then nothing has happened. Raises as the method does."""


def methods(on: inference_service.InferenceService) -> dict[str, Method]:
    """Every method by its path."""
    of = _Methods(on)
    return {
        paths.MODEL_INFER: of.model_infer,
        paths.MODEL_READY: of.model_ready,
        paths.MODEL_METADATA: of.model_metadata,
        paths.MODEL_CONFIG: of.model_config,
        paths.MODEL_STATISTICS: of.model_statistics,
    }


def at_once(on: inference_service.InferenceService) -> dict[bytes, AtOnce]:
    """Those that may have their answer without waiting for anything, by path."""
    return {paths.MODEL_INFER.encode(): _Methods(on).infer_now}


class _Methods:
    def __init__(self, on: inference_service.InferenceService) -> None:
        self._on = on

    def infer_now(self, request: inference_request.InferenceRequest) -> bytes | None:
        call = _call(request)
        reply = self._on.infer_now(call)
        return None if reply is None else inference.encode_infer(reply, is_raw=call.is_raw)

    async def model_infer(self, request: inference_request.InferenceRequest) -> bytes:
        call = _call(request)
        reply = await self._on.infer(call, request.expires_s)
        return inference.encode_infer(reply, is_raw=call.is_raw)

    async def model_ready(self, request: inference_request.InferenceRequest) -> bytes:
        asked = _parsed(pb.ModelReadyRequest, request)
        ready = self._on.is_ready(request.named or asked.name, asked.version)
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    async def model_metadata(self, request: inference_request.InferenceRequest) -> bytes:
        asked = _parsed(pb.ModelMetadataRequest, request)
        about = await self._on.described(
            request.named or asked.name, asked.version, request.expires_s
        )
        return model_description.metadata_message(about).SerializeToString()

    async def model_config(self, request: inference_request.InferenceRequest) -> bytes:
        asked = _parsed(pb.ModelConfigRequest, request)
        about = await self._on.described(
            request.named or asked.name, asked.version, request.expires_s
        )
        return model_description.config_message(about).SerializeToString()

    async def model_statistics(self, request: inference_request.InferenceRequest) -> bytes:
        asked = _parsed(pb.ModelStatisticsRequest, request)
        return model_description.statistics_message(
            self._on.statistics(request.named or asked.name, asked.version)
        ).SerializeToString()


def _call(request: inference_request.InferenceRequest) -> inference.InferCall:
    call = inference.decode_infer(request.body)
    if request.named:
        call.model, call.version = request.named, ""
    return call


def _parsed(kind: type[M], request: inference_request.InferenceRequest) -> M:
    try:
        return kind.FromString(request.body)
    except DecodeError:
        raise errors.InvalidRequest(f"the body is not a {kind.DESCRIPTOR.name}") from None
