"""An interceptor that answers INVALID_ARGUMENT to messages that can't be decoded.

grpcio answers UNKNOWN, which blames the server for its client's mistake.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

Handler = Any


class DecodeErrors(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # gRPC comes without types
    """Wraps methods with one request message; methods with a request stream are left alone."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return a handler of the method that decodes the message itself, to see the error."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        if handler.response_streaming:
            method = _decoding(handler.request_deserializer, handler.unary_stream, details.method)
            return grpc.unary_stream_rpc_method_handler(method, None, handler.response_serializer)
        # Without a deserializer gRPC hands over the bytes, so that the error is raised here.
        method = _decoding(handler.request_deserializer, handler.unary_unary, details.method)
        return grpc.unary_unary_rpc_method_handler(method, None, handler.response_serializer)


def _decoding(
    decode: Callable[[bytes], Any], method: Callable[..., Awaitable[Any]], path: str
) -> Callable[..., Awaitable[Any]]:
    async def decoding(body: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            request = decode(body)
        except DecodeError:
            message = f"the body is no request of {path}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        return await method(request, context)

    return decoding
