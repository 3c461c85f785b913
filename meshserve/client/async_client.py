"""The client for event loops."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self, TypeVar

import grpc

from meshserve.client import arrays, channels, conversation, grpc_errors

T = TypeVar("T")


class AsyncClient:
    """`Client` for one event loop: every method is awaited, the context manager is asynchronous.

    Create it inside the loop that uses it. A cancelled call is cancelled on the server too.
    """

    def __init__(
        self, endpoint: str = "", api_key: str | None = None, timeout_s: float = 30.0
    ) -> None:
        self._channel = channels.connect(endpoint, grpc.aio)
        self._methods = channels.methods(self._channel)
        self._conversation = conversation.Conversation()
        self._metadata = channels.metadata(api_key)
        self._timeout_s = timeout_s

    async def predict(
        self,
        model: str,
        inputs: arrays.Inputs,
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> conversation.Prediction:
        """Predict as `Client.predict` does: shapes, datatypes and errors are the same."""
        request = conversation.PredictRequest(model, inputs, version, tuple(outputs), request_id)
        return await self._perform(self._conversation.predict(request), timeout_s)

    async def metadata(self, model: str, version: str = "") -> conversation.ModelMetadata:
        """Return what `Client.metadata` returns. Raises ModelNotFound."""
        return await self._perform(self._conversation.metadata(model, version))

    async def is_ready(self, model: str, version: str = "") -> bool:
        """Return what `Client.is_ready` returns."""
        return await self._perform(self._conversation.is_ready(model, version))

    async def models(self) -> tuple[conversation.ListedModel, ...]:
        """Return what `Client.models` returns."""
        return await self._perform(self._conversation.models())

    async def close(self) -> None:
        """Close the connection. Calls in progress fail."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _perform(self, steps: conversation.Steps[T], timeout_s: float | None = None) -> T:
        """Make the calls that `steps` yields, all within one deadline."""
        # A first prediction also fetches metadata: both calls together get the caller's timeout.
        end_s = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        try:
            call = next(steps)
            while True:
                method, left_s = self._methods[call.path], end_s - time.monotonic()
                try:
                    answer = await method(call.request, timeout=left_s, metadata=self._metadata)
                except grpc.RpcError as failure:
                    call = steps.throw(grpc_errors.raised_by(failure))
                else:
                    call = steps.send(answer)
        # A generator returns its result as the value of StopIteration.
        except StopIteration as end:
            result: T = end.value
            return result
