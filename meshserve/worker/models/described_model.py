"""Models that their owner described for Triton: its shapes, batch size and labels as it reads them.

See `reshape`, `max_batch_size` and `label_filename` in `docs/user_guide/model_configuration.md` of
the Triton server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class _Reshape:
    """The shape that a tensor has on the other side, behind its first `kept` dimensions."""

    kept: int
    shape: tuple[int, ...]
    free: tuple[int, ...]
    """Positions of the free sizes that take the place of the -1 in `shape`, in their order."""

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return the array in the other shape. Raises ValueError if it does not fit."""
        sizes = iter([array.shape[position] for position in self.free])
        shape = [next(sizes) if size < 0 else size for size in self.shape]
        return array.reshape(array.shape[: self.kept] + tuple(shape))


class DescribedModel(model_runtime.LoadedModel):
    """A loaded model with the shapes and the batch size of its description."""

    def __init__(
        self,
        loaded: model_runtime.LoadedModel,
        signature: model.Signature,
        spec: model.ModelSpec,
        rows_max: int,
    ) -> None:
        self.signature = signature
        self.capabilities = loaded.capabilities
        self._loaded = loaded
        self._name = spec.id.name
        self._rows_max = rows_max
        kept = 1 if rows_max else 0
        self._inputs = _reshapes(signature.inputs, loaded.signature.inputs, kept)
        self._outputs = _reshapes(loaded.signature.outputs, signature.outputs, kept)
        self.probe = None
        if loaded.probe is not None:
            # In the client's shapes, because `predict` brings it into the model's own.
            back = _reshapes(loaded.signature.inputs, signature.inputs, kept)
            self.probe = {
                name: back[name].apply(array) if name in back else array
                for name, array in loaded.probe.items()
            }

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run the model; shapes are the description's.

        Raises InvalidRequest for more rows than `max_batch_size`, or not the same for each input.
        """
        return self._to_client(self._loaded.predict(self._to_model(inputs), outputs))

    def predict_request(
        self, inputs: Tensors, outputs: Sequence[str], details: model_runtime.RequestDetails
    ) -> Tensors:
        """Run the model for one request; shapes are the description's. Raises as `predict`."""
        answer = self._loaded.predict_request(self._to_model(inputs), outputs, details)
        if isinstance(answer, model_runtime.AnswerTensors):
            return model_runtime.AnswerTensors(
                self._to_client(answer), answer.parameters, answer.output_parameters
            )
        return self._to_client(answer)

    def _to_model(self, inputs: Tensors) -> Tensors:
        if self._rows_max:
            self._check_rows(inputs)
        return _reshaped(inputs, self._inputs) if self._inputs else inputs

    def _to_client(self, answer: Tensors) -> Tensors:
        if not self._outputs:
            return answer
        try:
            return _reshaped(answer, self._outputs)
        except (ValueError, IndexError) as error:
            raise errors.ModelRaised(
                f"an output does not have the shape that `reshape` states: {error}"
            ) from None

    def _check_rows(self, inputs: Tensors) -> None:
        rows = -1
        for name, array in inputs.items():
            if not array.shape:
                raise errors.InvalidRequest(
                    f"input {name!r} is one value without rows, but max_batch_size is set"
                )
            size = array.shape[0]
            if size > self._rows_max:
                raise errors.InvalidRequest(
                    f"inference request batch-size must be <= {self._rows_max} "
                    f"for {self._name!r}, {size} came"
                )
            if rows not in (-1, size):
                raise errors.InvalidRequest(
                    f"input {name!r} has {size} rows, the inputs before it have {rows}: "
                    "all must have the same, because max_batch_size is set"
                )
            rows = size

    def close(self) -> None:
        """Free the model's memory."""
        self._loaded.close()

    def offload(self) -> None:
        """Move everything from the GPU to host memory."""
        self._loaded.offload()

    def onload(self) -> None:
        """Move everything back to the GPU."""
        self._loaded.onload()

    def detach(self) -> None:
        """Unmap the weights."""
        self._loaded.detach()

    def attach(self, artifact: model_runtime.Artifact) -> None:
        """Map the weights again. Raises LoadFailed."""
        self._loaded.attach(artifact)


def load(
    runtime: model_runtime.Runtime,
    artifact: model_runtime.Artifact,
    spec: model.ModelSpec,
    device: str,
) -> model_runtime.LoadedModel:
    """Load a model, with the shapes, the batch size and the labels of its description if any.

    Raises as `Runtime.load` does.
    """
    if not spec.description:
        return runtime.load(artifact, spec, device)
    document = orjson.loads(spec.description)
    config = document["config"]
    rows_max = int(config.get("max_batch_size", 0))
    own_spec = replace(
        spec,
        inputs=_own_specs(spec.inputs, config.get("input", ())),
        outputs=_own_specs(spec.outputs, config.get("output", ())),
    )
    loaded = runtime.load(artifact, own_spec, device)
    own = loaded.signature
    _check_optional(config.get("input", ()), own)
    signature = replace(
        _described(own, rows_max, document["labels"]),
        inputs=_client_specs(spec.inputs, own_spec.inputs, own.inputs),
        outputs=_client_specs(spec.outputs, own_spec.outputs, own.outputs),
    )
    if not rows_max and signature == own:
        return loaded
    return DescribedModel(loaded, signature, spec, rows_max)


def config_text(spec: model.ModelSpec) -> str:
    """Return Triton's model configuration in a spec as JSON; empty if it has none."""
    if not spec.description:
        return ""
    return orjson.dumps(orjson.loads(spec.description)["config"]).decode()


def _own_specs(
    specs: Sequence[model.TensorSpec], tensors: Sequence[Mapping[str, Any]]
) -> tuple[model.TensorSpec, ...]:
    """Return the specs in the shapes that the model itself has."""
    by_name = {tensor["name"]: tensor for tensor in tensors}
    return tuple(_own_spec(spec, by_name.get(spec.name, {})) for spec in specs)


def _own_spec(spec: model.TensorSpec, tensor: Mapping[str, Any]) -> model.TensorSpec:
    if "reshape" not in tensor:
        return spec
    kept = len(spec.shape) - len(tensor.get("dims", ()))
    shape = tuple(int(size) for size in tensor["reshape"].get("shape", ()))
    return replace(spec, shape=spec.shape[:kept] + shape)


def _client_specs(
    declared: Sequence[model.TensorSpec],
    own: Sequence[model.TensorSpec],
    loaded: Sequence[model.TensorSpec],
) -> tuple[model.TensorSpec, ...]:
    """Return the loaded model's specs, in the declared shapes where `reshape` makes others of them.

    So are those of scalars, which can't be declared but as [1].
    """
    reshaped = {
        spec.name
        for spec, own_spec in zip(declared, own, strict=True)
        if spec.shape != own_spec.shape
    }
    shapes = {spec.name: spec.shape for spec in declared}
    return tuple(
        replace(spec, shape=shapes[spec.name])
        if spec.name in reshaped or len(shapes.get(spec.name, spec.shape)) != len(spec.shape)
        else spec
        for spec in loaded
    )


def _described(
    signature: model.Signature, rows_max: int, labels: Mapping[str, Sequence[str]]
) -> model.Signature:
    """Return the signature with what the description says of batches and labels.

    Raises LoadFailed if a tensor can't have the batch dimension that is described.
    """
    for spec in (*signature.inputs, *signature.outputs) if rows_max else ():
        if spec.datatype and spec.shape[:1] != (-1,):
            raise errors.LoadFailed(
                f"max_batch_size is {rows_max}, but the first dimension of {spec.name!r}, "
                f"{list(spec.shape)}, is not of any size: set max_batch_size: 0"
            )
    return replace(
        signature,
        has_batch_dimension=rows_max > 0,
        can_join=signature.can_join and rows_max > 0,
        labels=tuple((name, tuple(names)) for name, names in labels.items()),
    )


def _check_optional(tensors: Sequence[Mapping[str, Any]], signature: model.Signature) -> None:
    """Raise LoadFailed for an input that is described as optional, and that the model needs."""
    for tensor in tensors:
        if tensor.get("optional") and tensor["name"] not in signature.optional:
            raise errors.LoadFailed(
                f"input {tensor['name']!r} is optional in the configuration, but the model needs "
                "it: an ONNX graph has a default if the input is an initializer too; "
                "drop `optional`, or write a Python class"
            )


def _reshapes(
    sources: Sequence[model.TensorSpec], targets: Sequence[model.TensorSpec], kept: int
) -> dict[str, _Reshape]:
    """Return for each tensor that differs in its shape how `targets` has it."""
    shapes = {spec.name: spec.shape for spec in targets}
    return {
        spec.name: _Reshape(
            kept,
            shapes[spec.name][kept:],
            tuple(i for i, size in enumerate(spec.shape) if size < 0 and i >= kept),
        )
        for spec in sources
        if spec.shape != shapes[spec.name]
    }


def _reshaped(tensors: Tensors, reshapes: Mapping[str, _Reshape]) -> dict[str, np.ndarray]:
    return {
        name: reshapes[name].apply(array) if name in reshapes else array
        for name, array in tensors.items()
    }
