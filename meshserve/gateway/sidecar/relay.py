"""The way of the sidecar's calls back through Envoy, as unary calls that workers understand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from meshserve.gateway.envoy import listener
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb

# Requests of one stream that are under way at a time; more wait in the stream.
IN_FLIGHT_MAX = 32
# The gateway's own port limits messages, and its errors name the setting.
NO_LIMIT = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
DETAILS = "grpc-status-details-bin"
# Triton's parameters for streams: a client asks for them, and the answer marks a request's end.
FINAL = "triton_final_response"
WANTS_FINAL = "triton_enable_empty_final_response"
# Metadata of the hop from Envoy to the sidecar, not the caller's.
HOP_PREFIXES = ("grpc-", "x-forwarded-", "x-envoy-", "x-mesh-")
HOP_KEYS = frozenset(
    {"user-agent", "content-type", "te", "accept", "content-length", "x-request-id"}
)

Metadata = tuple[tuple[str, str | bytes], ...]
Request = pb.ModelInferRequest | None
"""One element of a stream, None if it could not be decoded."""


class Relay:
    """A channel to the gateway's own port.

    A relayed call is authenticated, routed, limited and retried there like any other.
    """

    def __init__(self, listen: str) -> None:
        self._channel = grpc.aio.insecure_channel(own_address(listen), options=NO_LIMIT)

    async def close(self) -> None:
        """Close the channel; calls under way fail."""
        await self._channel.close()

    async def unary(
        self, method: str, message: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        """Return the answer to the call in `context`, or abort it with the same status."""
        try:
            return bytes(await self._call(method, message, context))
        except grpc.aio.AioRpcError as failure:
            trailers = failure.trailing_metadata() or ()
            details = tuple((key, value) for key, value in trailers if key == DETAILS)
            await context.abort(failure.code(), failure.details() or "", details)
            # Never reached, because `abort` raises, which the type checker does not know.
            raise

    async def stream_infer(
        self, requests: AsyncIterator[Request], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Answer a stream's requests in their order, several of them under way at a time.

        The answer to a request that fails is an element with `error_message`.
        """
        # At once, although it is empty: Envoy ends a request that has no answer for too long.
        await context.send_initial_metadata(())
        # Tasks in the order of their requests, because a stream's answers must come in that order.
        answers: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue(
            IN_FLIGHT_MAX
        )
        async with asyncio.TaskGroup() as group:

            async def send_all() -> None:
                async for request in requests:
                    await answers.put(group.create_task(self._element(request, context)))
                await answers.put(None)

            group.create_task(send_all())
            while (answer := await answers.get()) is not None:
                await context.write(await answer)

    async def _element(
        self, request: Request, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ModelStreamInferResponse:
        if request is None:
            message = "the element is not a ModelInferRequest"
            return pb.ModelStreamInferResponse(error_message=message)
        try:
            answer = await self._call(paths.MODEL_INFER, request.SerializeToString(), context)
        except grpc.aio.AioRpcError as failure:
            # Named, so that the client can tell which of its requests failed.
            named = pb.ModelInferResponse(
                id=request.id, model_name=request.model_name, model_version=request.model_version
            )
            message = failure.details() or failure.code().name
            return pb.ModelStreamInferResponse(error_message=message, infer_response=named)
        element = pb.ModelStreamInferResponse(
            infer_response=pb.ModelInferResponse.FromString(answer)
        )
        if request.parameters[WANTS_FINAL].bool_param:
            element.infer_response.parameters[FINAL].bool_param = True
        return element

    def _call(
        self, method: str, message: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        call = self._channel.unary_unary(method)
        metadata = _callers(context.invocation_metadata() or ())
        return call(message, metadata=metadata, timeout=context.time_remaining())


def decode_element(body: bytes) -> Request:
    """Return an element of a stream, None if it can't be decoded."""
    try:
        return pb.ModelInferRequest.FromString(body)
    except DecodeError:
        return None


def own_address(listen: str) -> str:
    """Return the address at which a gateway that listens on `listen` is reached on its node."""
    host, port = listener.split_address(listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _callers(metadata: Sequence[tuple[str, str | bytes]]) -> Metadata:
    return tuple(
        (key, value)
        for key, value in metadata
        if key not in HOP_KEYS and not key.startswith(HOP_PREFIXES)
    )
