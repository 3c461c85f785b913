"""Sends calls that came to the node's own server through Envoy, as the unary calls that workers understand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from meshserve.gateway.envoy import listener
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb

IN_FLIGHT_MAX = 32
NO_LIMIT = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
DETAILS = "grpc-status-details-bin"
FINAL = "triton_final_response"
FINAL_WANTED = "triton_enable_empty_final_response"
# What the hop from Envoy to this server said, not the caller.
NOT_THE_CALLERS = ("grpc-", "x-forwarded-", "x-envoy-", "x-mesh-")
OF_THE_HOP = frozenset(
    {"user-agent", "content-type", "te", "accept", "content-length", "x-request-id"}
)

Metadata = tuple[tuple[str, str | bytes], ...]
Request = pb.ModelInferRequest | None
"""One element of a stream; nothing where it could not be decoded."""


class Relay:
    """One channel to the gateway's own port, so that a relayed call is authenticated, routed, limited and retried like any other."""

    def __init__(self, listen: str) -> None:
        self._channel = grpc.aio.insecure_channel(own_address(listen), options=NO_LIMIT)

    async def close(self) -> None:
        """Close the channel; calls under way fail."""
        await self._channel.close()

    async def unary(
        self, method: str, message: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        """The answer to the same call as the one in `context`, which is aborted with the same status if that fails."""
        try:
            return bytes(await self._call(method, message, context))
        except grpc.aio.AioRpcError as fault:
            details = tuple(
                (key, value) for key, value in fault.trailing_metadata() or () if key == DETAILS
            )
            await context.abort(fault.code(), fault.details() or "", details)
            raise

    async def stream_infer(
        self, requests: AsyncIterator[Request], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Answer a stream's requests in their order, several under way at a time. A failed one is an element with `error_message`."""
        answers: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue(
            IN_FLIGHT_MAX
        )
        async with asyncio.TaskGroup() as tasks:

            async def ask_all() -> None:
                async for request in requests:
                    await answers.put(tasks.create_task(self._element(request, context)))
                await answers.put(None)

            tasks.create_task(ask_all())
            while (answer := await answers.get()) is not None:
                await context.write(await answer)

    async def _element(
        self, request: Request, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ModelStreamInferResponse:
        if request is None:
            return pb.ModelStreamInferResponse(
                error_message="the element is not a ModelInferRequest"
            )
        try:
            answer = await self._call(paths.MODEL_INFER, request.SerializeToString(), context)
        except grpc.aio.AioRpcError as fault:
            named = pb.ModelInferResponse(
                id=request.id, model_name=request.model_name, model_version=request.model_version
            )
            return pb.ModelStreamInferResponse(
                error_message=fault.details() or fault.code().name, infer_response=named
            )
        element = pb.ModelStreamInferResponse(
            infer_response=pb.ModelInferResponse.FromString(answer)
        )
        if request.parameters[FINAL_WANTED].bool_param:
            element.infer_response.parameters[FINAL].bool_param = True
        return element

    def _call(
        self, method: str, message: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        call = self._channel.unary_unary(method)
        return call(
            message,
            metadata=_of_the_caller(context.invocation_metadata() or ()),
            timeout=context.time_remaining(),
        )


def decoded(body: bytes) -> Request:
    """An element of a stream, if it is one."""
    try:
        return pb.ModelInferRequest.FromString(body)
    except DecodeError:
        return None


def _of_the_caller(metadata: Sequence[tuple[str, str | bytes]]) -> Metadata:
    return tuple(
        (key, value)
        for key, value in metadata
        if key not in OF_THE_HOP and not key.startswith(NOT_THE_CALLERS)
    )


def own_address(listen: str) -> str:
    """Where a gateway that listens there is reached from its own node."""
    host, port = listener.split_address(listen)
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{near}]:{port}" if ":" in near else f"{near}:{port}"
