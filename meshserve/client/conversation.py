"""The calls of a client and the meaning of their answers, without a connection.

Each method is a generator that yields calls and is sent their answers, so that the blocking and the
asynchronous client share it (the style of https://sans-io.readthedocs.io).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from meshserve import errors
from meshserve.client import arrays
from meshserve.core.values import model
from meshserve.protocol import parameters, paths, tensors
from meshserve.protocol.pb import inference_pb2 as pb

T = TypeVar("T")
Prediction: TypeAlias = "np.ndarray | dict[str, np.ndarray]"


class UnaryCall(NamedTuple):
    """A call to make: the path of a unary gRPC method, and the request message."""

    path: str
    request: Any


Steps: TypeAlias = Generator[UnaryCall, Any, T]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's versions, inputs and outputs. A -1 in a shape stands for any size.

    `has_loose_inputs`: inputs may have other datatypes than these, as for tabular models; or nobody
    declared them, so `inputs` are what was seen.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[model.TensorSpec, ...]
    outputs: tuple[model.TensorSpec, ...]
    has_loose_inputs: bool = False


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One version of a model, its state on the server, and the reason of that state."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """One prediction, as the caller asked for it."""

    model: str
    inputs: arrays.Inputs
    version: str = ""
    outputs: tuple[str, ...] = ()
    request_id: str = ""


class Conversation:
    """One client's calls. Caches models' metadata, and fetches it again when it has changed."""

    def __init__(self) -> None:
        self._metadata: dict[tuple[str, str], ModelMetadata] = {}

    def predict(self, request: PredictRequest) -> Steps[Prediction]:
        """Predict. Raises InvalidRequest for inputs that don't fit the model's present metadata."""
        cached = self._metadata.get((request.model, request.version))
        if cached is None:
            metadata = yield from self.metadata(request.model, request.version)
            return (yield from _infer(request, metadata))
        try:
            return (yield from _infer(request, cached))
        except errors.InvalidRequest:
            # The model may have been replaced by one with other inputs.
            fresh = yield from self.metadata(request.model, request.version)
            if fresh == cached:
                raise
            return (yield from _infer(request, fresh))

    def metadata(self, name: str, version: str) -> Steps[ModelMetadata]:
        """Fetch the model's metadata and cache it."""
        # Dropped first: if this call fails, later predictions must not use old metadata.
        self._metadata.pop((name, version), None)
        request = pb.ModelMetadataRequest(name=name, version=version)
        answer = yield UnaryCall(paths.MODEL_METADATA, request)
        inputs, outputs = (
            tuple(_spec(tensor) for tensor in side) for side in (answer.inputs, answer.outputs)
        )
        metadata = ModelMetadata(
            answer.name,
            tuple(answer.versions),
            answer.platform,
            inputs,
            outputs,
            answer.has_loose_inputs,
        )
        self._metadata[name, version] = metadata
        return metadata

    def is_ready(self, name: str, version: str) -> Steps[bool]:
        """Ask whether the model answers predictions; an unknown model does not."""
        request = pb.ModelReadyRequest(name=name, version=version)
        try:
            answer = yield UnaryCall(paths.MODEL_READY, request)
        except errors.ModelNotFound:
            return False
        return bool(answer.ready)

    def models(self) -> Steps[tuple[ListedModel, ...]]:
        """List every version of every model."""
        answer = yield UnaryCall(paths.REPOSITORY_INDEX, pb.RepositoryIndexRequest())
        return tuple(
            ListedModel(entry.name, entry.version, entry.state, entry.reason)
            for entry in answer.models
        )


def _spec(tensor: Any) -> model.TensorSpec:
    return model.TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape))


def _infer(request: PredictRequest, metadata: ModelMetadata) -> Steps[Prediction]:
    message = pb.ModelInferRequest(
        model_name=request.model, model_version=request.version, id=request.request_id
    )
    # Tensors are sent as raw bytes: typed contents would need a Python object for each number.
    taken = arrays.TakenInputs(metadata.inputs, metadata.has_loose_inputs, metadata.platform)
    for spec, array in arrays.to_tensors(request.model, request.inputs, taken):
        added = message.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        array = parameters.mark_nulls(array, added)  # noqa: PLW2901 raw bytes have no null
        message.raw_input_contents.append(tensors.to_raw(array))
    for name in request.outputs:
        message.outputs.add(name=name)
    outputs = arrays.from_answer((yield UnaryCall(paths.MODEL_INFER, message)))
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs
