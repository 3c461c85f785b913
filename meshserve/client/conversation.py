"""What a client says and how it takes the answers, without a connection: generators that yield calls and are sent answers."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from meshserve import errors
from meshserve.client import arrays
from meshserve.core.values import model
from meshserve.protocol import tensors
from meshserve.protocol.pb import inference_pb2 as pb

T = TypeVar("T")
Prediction: TypeAlias = "np.ndarray | dict[str, np.ndarray]"
Specs: TypeAlias = "Mapping[str, model.TensorSpec]"


class UnaryCall(NamedTuple):
    """One unary call: a method of the inference service, and its message."""

    method: str
    request: Any


Steps: TypeAlias = Generator[UnaryCall, Any, T]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model takes and gives. -1 in a shape is any size."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[model.TensorSpec, ...]
    outputs: tuple[model.TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One version of one model, its state on the server, and why it is in it."""

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
    """One client's talk with one mesh. Remembers models' metadata, and asks again when it turns out to be old."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], ModelMetadata] = {}

    def predict(self, question: PredictRequest) -> Steps[Prediction]:
        """Raises InvalidRequest where the inputs don't fit, by metadata that is not old."""
        known = self._known.get((question.model, question.version))
        if known is None:
            known = yield from self.metadata(question.model, question.version)
            return (yield from _infer(question, known))
        try:
            return (yield from _infer(question, known))
        except errors.InvalidRequest:
            fresh = yield from self.metadata(question.model, question.version)
            if fresh == known:
                raise
            return (yield from _infer(question, fresh))

    def metadata(self, name: str, version: str) -> Steps[ModelMetadata]:
        """What the server says now."""
        self._known.pop((name, version), None)
        answer = yield UnaryCall(
            "ModelMetadata", pb.ModelMetadataRequest(name=name, version=version)
        )
        inputs, outputs = (
            tuple(_spec(tensor) for tensor in side) for side in (answer.inputs, answer.outputs)
        )
        known = ModelMetadata(answer.name, tuple(answer.versions), answer.platform, inputs, outputs)
        self._known[name, version] = known
        return known

    def is_ready(self, name: str, version: str) -> Steps[bool]:
        """Whether the model can be asked."""
        try:
            answer = yield UnaryCall("ModelReady", pb.ModelReadyRequest(name=name, version=version))
        except errors.ModelNotFound:
            return False
        return bool(answer.ready)

    def models(self) -> Steps[tuple[ListedModel, ...]]:
        """Every version of every model."""
        answer = yield UnaryCall("RepositoryIndex", pb.RepositoryIndexRequest())
        return tuple(
            ListedModel(entry.name, entry.version, entry.state, entry.reason)
            for entry in answer.models
        )


def _spec(tensor: Any) -> model.TensorSpec:
    return model.TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape))


def _infer(question: PredictRequest, known: ModelMetadata) -> Steps[Prediction]:
    request = pb.ModelInferRequest(
        model_name=question.model, model_version=question.version, id=question.request_id
    )
    for spec, array in arrays.fitted(question.model, question.inputs, known.inputs):
        request.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        request.raw_input_contents.append(tensors.to_raw(array))
    for name in question.outputs:
        request.outputs.add(name=name)
    answer = yield UnaryCall("ModelInfer", request)
    answered = arrays.of_answer(answer)
    return next(iter(answered.values())) if len(answered) == 1 else answered
