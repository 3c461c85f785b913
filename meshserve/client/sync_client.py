"""The client for threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self, TypeVar

import grpc

from meshserve.client import arrays, channels, conversation, grpc_errors

T = TypeVar("T")


class Client:
    """A client of one mesh's models, for use by many threads at once.

    `endpoint` is `host:port`, or a URL with `http` or `https`; without one it is that of the
    environment, MESHSERVE_ENDPOINT. `timeout_s` applies to every call
    without a timeout of its own. Close the client, or use it as a context manager.
    """

    def __init__(
        self, endpoint: str = "", api_key: str | None = None, timeout_s: float = 30.0
    ) -> None:
        self._channel = channels.connect(endpoint, grpc)
        self._methods = channels.methods(self._channel)
        self._conversation = conversation.Conversation()
        self._metadata = channels.metadata(api_key)
        self._timeout_s = timeout_s

    def predict(
        self,
        model: str,
        inputs: arrays.Inputs,
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> conversation.Prediction:
        """Return the model's answer: one array if it has one output, otherwise a dict by name.

        `inputs` is an array if the model has one input, otherwise a dict of arrays by name; a list
        or string may stand for an array. The columns of a data frame are inputs by their names.
        Shapes must fit the model's metadata; datatypes are cast if nothing is lost, and stay as
        they are for tabular models and those that declare no inputs. `outputs` names the outputs to
        return, by default all.

        Raises InvalidRequest for inputs that don't fit the model, and every error of the server.
        """
        request = conversation.PredictRequest(model, inputs, version, tuple(outputs), request_id)
        return self._perform(self._conversation.predict(request), timeout_s)

    def metadata(self, model: str, version: str = "") -> conversation.ModelMetadata:
        """Return the model's inputs and outputs as they are now. Raises ModelNotFound."""
        return self._perform(self._conversation.metadata(model, version))

    def is_ready(self, model: str, version: str = "") -> bool:
        """Return whether the model answers predictions; False for an unknown model too."""
        return self._perform(self._conversation.is_ready(model, version))

    def models(self) -> tuple[conversation.ListedModel, ...]:
        """Return every version of every model."""
        return self._perform(self._conversation.models())

    def close(self) -> None:
        """Close the connection. Calls in progress fail."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _perform(self, steps: conversation.Steps[T], timeout_s: float | None = None) -> T:
        """Make the calls that `steps` yields, all within one deadline."""
        # A first prediction also fetches metadata: both calls together get the caller's timeout.
        end_s = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        try:
            call = next(steps)
            while True:
                method, left_s = self._methods[call.path], end_s - time.monotonic()
                try:
                    answer = method(call.request, timeout=left_s, metadata=self._metadata)
                except grpc.RpcError as failure:
                    call = steps.throw(grpc_errors.raised_by(failure))
                else:
                    call = steps.send(answer)
        # A generator returns its result as the value of StopIteration.
        except StopIteration as end:
            result: T = end.value
            return result
