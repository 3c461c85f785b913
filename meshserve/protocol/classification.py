"""Triton's classification extension: the best classes of an output in place of its values.

Each class is the BYTES "value:index" or "value:index:label". See
`docs/protocol/extension_classification.md` of the Triton server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import inference

_KINDS = "iuf"
_UNORDERED = ("FP16", "BF16")
"""Triton orders no values of these datatypes."""


def apply(reply: inference.InferReply, counts: Mapping[str, int]) -> inference.InferReply:
    """Return the reply with classes in place of the outputs in `counts`, as BYTES.

    Their shape is [rows, classes] if the model has a batch dimension, else [classes]. Raises
    InvalidRequest for an output whose values can't be ordered.
    """
    signature = reply.signature
    labels = dict(signature.labels)
    outputs = dict(reply.outputs)
    specs = []
    for spec in signature.outputs:
        if spec.name not in counts or spec.name not in outputs:
            specs.append(spec)
            continue
        array = outputs[spec.name]
        if array.dtype.kind not in _KINDS or spec.datatype in _UNORDERED:
            raise errors.InvalidRequest(
                f"output {spec.name!r} is {spec.datatype}: classification is not offered for that"
            )
        has_rows = signature.has_batch_dimension
        sizes = array.shape if has_rows else (1, *array.shape)
        outputs[spec.name] = best_classes(
            # Computed, because numpy can't find the size for -1 in an empty batch.
            array.reshape(sizes[0], math.prod(sizes[1:])),
            counts[spec.name],
            labels.get(spec.name, ()),
        )
        if not has_rows:
            outputs[spec.name] = outputs[spec.name][0]
        specs.append(model.TensorSpec(spec.name, "BYTES", outputs[spec.name].shape))
    return reply._replace(outputs=outputs, signature=replace(signature, outputs=tuple(specs)))


def best_classes(rows: np.ndarray, count: int, labels: Sequence[str]) -> np.ndarray:
    """Return the `count` greatest values of each row, the greatest first, NaN last.

    `rows` is [rows, classes] of numbers; the result is BYTES of shape [rows, at most `count`].
    """
    ordered = np.where(np.isnan(rows), -np.inf, rows) if rows.dtype.kind == "f" else rows
    last = rows.shape[1] - 1
    # Reversed twice, so that of equal values the first class comes first.
    best = last - np.argsort(ordered[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    classes = np.empty(best.shape, object)
    for row, indexes in enumerate(best.tolist()):
        for place, index in enumerate(indexes):
            classes[row, place] = _text(rows[row, index], index, labels)
    return classes


def _text(value: np.generic, index: int, labels: Sequence[str]) -> bytes:
    # C++'s std::to_string writes six digits behind the point.
    number = f"{float(value):f}" if value.dtype.kind == "f" else str(int(value))
    label = labels[index] if index < len(labels) else ""
    return (f"{number}:{index}:{label}" if label else f"{number}:{index}").encode()
