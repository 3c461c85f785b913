"""The client for threads."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TypeVar

import grpc

from meshserve.client import arrays, channels, conversation, grpc_errors

T = TypeVar("T")


class Client:
    """Asks the models of one mesh. May be used by many threads at once; close it, or use it as a context manager.

    `endpoint` is `host:port`, or a URL of `http` or `https`. `timeout_s` bounds every call that says nothing else.
    """

    def __init__(self, endpoint: str, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        where = channels.place(endpoint)
        self._channel = (
            grpc.secure_channel(where.target, grpc.ssl_channel_credentials(), channels.OPTIONS)
            if where.is_secure
            else grpc.insecure_channel(where.target, channels.OPTIONS)
        )
        self._stub = channels.stub(self._channel)
        self._exchange = conversation.Conversation()
        self._metadata = channels.metadata(api_key)
        self._timeout_s = timeout_s

    def predict(
        self,
        model: str,
        inputs: arrays.Inputs,
        *,
        version: str = "",
        outputs: tuple[str, ...] = (),
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> conversation.Prediction:
        """The model's answer: an array if it has one output (or one is asked for), else a dict by name.

        `inputs` is an array for a model of one input, else a dict; lists and strings will do. They are cast only where nothing is lost.
        Raises InvalidRequest where they don't fit the model's inputs, and whatever the server answers.
        """
        question = conversation.PredictRequest(model, inputs, version, tuple(outputs), request_id)
        return self._finish(self._exchange.predict(question), timeout_s)

    def metadata(self, model: str, version: str = "") -> conversation.ModelMetadata:
        """The model's inputs and outputs, as the server knows them now. Raises ModelNotFound."""
        return self._finish(self._exchange.metadata(model, version))

    def is_ready(self, model: str, version: str = "") -> bool:
        """Whether the model can be asked. False too where there is none of that name."""
        return self._finish(self._exchange.is_ready(model, version))

    def models(self) -> tuple[conversation.ListedModel, ...]:
        """Every version of every model."""
        return self._finish(self._exchange.models())

    def close(self) -> None:
        """End the connection. Calls under way fail."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _finish(self, steps: conversation.Steps[T], timeout_s: float | None = None) -> T:
        """Make the calls that `steps` asks for, all within one deadline."""
        end_s = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        try:
            call = next(steps)
            while True:
                method = getattr(self._stub, call.method)
                try:
                    answer = method(
                        call.request, timeout=end_s - time.monotonic(), metadata=self._metadata
                    )
                except grpc.RpcError as failure:
                    call = steps.throw(grpc_errors.raised_by(failure))
                else:
                    call = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
