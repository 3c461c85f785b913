"""A message that can't be read is its sender's mistake: gRPC's own servers call it an unknown error of theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

Handler = Any


class Decoding(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # gRPC comes without types
    """Answers INVALID_ARGUMENT to calls whose one message can't be decoded. Streams of messages see to that themselves."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method's handler, decoding with care."""
        found = await continuation(details)
        if found is None or found.request_streaming or found.request_deserializer is None:
            return found
        if found.response_streaming:
            perform = _careful(found.request_deserializer, found.unary_stream, details.method)
            return grpc.unary_stream_rpc_method_handler(perform, None, found.response_serializer)
        perform = _careful(found.request_deserializer, found.unary_unary, details.method)
        return grpc.unary_unary_rpc_method_handler(perform, None, found.response_serializer)


def _careful(
    decode: Callable[[bytes], Any], perform: Callable[..., Awaitable[Any]], method: str
) -> Callable[..., Awaitable[Any]]:
    async def careful(body: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            request = decode(body)
        except DecodeError:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"the body is no request of {method}"
            )
        return await perform(request, context)

    return careful
