"""What answers show of the tensors of a model that nobody declared.

What was seen is no promise: a later request may differ from it, and so may its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from meshserve.core.values import model
from meshserve.protocol import tensors

TENSORS_MAX = 64
"""Names that are kept: a model may call its outputs by what came, such as words."""


def opened(signature: model.Signature) -> model.Signature:
    """Return the signature with open outputs if it has none: a runtime need not say so."""
    return signature if signature.outputs else replace(signature, has_open_outputs=True)


def learn(
    signature: model.Signature,
    inputs: Mapping[str, tensors.WireTensor],
    outputs: Mapping[str, np.ndarray],
) -> model.Signature:
    """Return the signature with what a request of any shapes and its answer show.

    It is the same object if they show nothing new. Only open inputs and outputs change. Raises
    ModelRaised for an output whose dtype is no datatype's.
    """
    learned_inputs, learned_outputs = signature.inputs, signature.outputs
    if signature.has_open_inputs:
        seen = [model.TensorSpec(name, *_seen(tensor)) for name, tensor in inputs.items()]
        learned_inputs = _merged(signature.inputs, seen)
    if signature.has_open_outputs and not _are_known(signature.outputs, outputs):
        learned_outputs = _merged(signature.outputs, tensors.specs_of(outputs))
    if learned_inputs is signature.inputs and learned_outputs is signature.outputs:
        return signature
    return replace(signature, inputs=learned_inputs, outputs=learned_outputs)


def _seen(tensor: tensors.WireTensor) -> tuple[str, tuple[int, ...]]:
    return tensor.datatype, tensor.array.shape


def _are_known(known: Sequence[model.TensorSpec], outputs: Mapping[str, np.ndarray]) -> bool:
    """Return whether outputs are among the known ones, with their datatypes and shapes.

    BF16 is known by its bits, which look like UINT16.
    """
    specs = {spec.name: spec for spec in known}
    return all(
        name in specs
        and array.dtype == tensors.DTYPES[specs[name].datatype]
        and _covers(specs[name].shape, array.shape)
        for name, array in outputs.items()
    )


def _covers(wide: Sequence[int], shape: Sequence[int]) -> bool:
    return len(wide) == len(shape) and all(
        size in (-1, narrow) for size, narrow in zip(wide, shape, strict=True)
    )


def _merged(
    known: tuple[model.TensorSpec, ...], seen: Iterable[model.TensorSpec]
) -> tuple[model.TensorSpec, ...]:
    """Return the known tensors, changed and extended by those that were seen."""
    specs = {spec.name: spec for spec in known}
    for spec in seen:
        earlier = specs.get(spec.name)
        if earlier is None and len(specs) >= TENSORS_MAX:
            continue
        # One tensor says nothing of the sizes that others may have.
        shape = (-1,) * len(spec.shape)
        if earlier is not None and earlier.datatype and len(earlier.shape) == len(spec.shape):
            pairs = zip(earlier.shape, spec.shape, strict=True)
            shape = tuple(wide if wide == size else -1 for wide, size in pairs)
        specs[spec.name] = replace(spec, shape=shape)
    merged = tuple(specs.values())
    return known if merged == known else merged
