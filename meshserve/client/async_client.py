"""The client for event loops."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TypeVar

import grpc

from meshserve.client import arrays, channels, conversation, grpc_errors

T = TypeVar("T")


class AsyncClient:
    """Asks the models of one mesh from an event loop: `Client` with every method awaited, and `async with`.

    Make it inside the loop that uses it. A cancelled call is cancelled on the server too.
    """

    def __init__(self, endpoint: str, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        where = channels.place(endpoint)
        self._channel = (
            grpc.aio.secure_channel(where.target, grpc.ssl_channel_credentials(), channels.OPTIONS)
            if where.is_secure
            else grpc.aio.insecure_channel(where.target, channels.OPTIONS)
        )
        self._stub = channels.stub(self._channel)
        self._exchange = conversation.Conversation()
        self._metadata = channels.metadata(api_key)
        self._timeout_s = timeout_s

    async def predict(
        self,
        model: str,
        inputs: arrays.Inputs,
        *,
        version: str = "",
        outputs: tuple[str, ...] = (),
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> conversation.Prediction:
        """As `Client.predict`."""
        question = conversation.PredictRequest(model, inputs, version, tuple(outputs), request_id)
        return await self._finish(self._exchange.predict(question), timeout_s)

    async def metadata(self, model: str, version: str = "") -> conversation.ModelMetadata:
        """As `Client.metadata`."""
        return await self._finish(self._exchange.metadata(model, version))

    async def is_ready(self, model: str, version: str = "") -> bool:
        """As `Client.is_ready`."""
        return await self._finish(self._exchange.is_ready(model, version))

    async def models(self) -> tuple[conversation.ListedModel, ...]:
        """As `Client.models`."""
        return await self._finish(self._exchange.models())

    async def close(self) -> None:
        """End the connection. Calls under way fail."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _finish(self, steps: conversation.Steps[T], timeout_s: float | None = None) -> T:
        """Make the calls that `steps` asks for, all within one deadline."""
        end_s = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        try:
            call = next(steps)
            while True:
                method = getattr(self._stub, call.method)
                try:
                    answer = await method(
                        call.request, timeout=end_s - time.monotonic(), metadata=self._metadata
                    )
                except grpc.RpcError as failure:
                    call = steps.throw(grpc_errors.raised_by(failure))
                else:
                    call = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
