"""A caller's values ↔ tensors: made to fit a model's inputs where nothing is lost, refused with the remedy where something would be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import inference, tensors
from meshserve.protocol.pb import inference_pb2 as pb

Inputs: TypeAlias = "npt.ArrayLike | Mapping[str, npt.ArrayLike]"
TEXT_KINDS = "USO"


def fitted(
    name: str, inputs: Inputs, specs: Sequence[model.TensorSpec]
) -> Iterator[tuple[model.TensorSpec, np.ndarray]]:
    """Each tensor with its specification. Raises InvalidRequest for names and datatypes that model `name` does not take."""
    wanted = ", ".join(f"{spec.name} ({spec.datatype})" for spec in specs)
    if not isinstance(inputs, Mapping):
        if len(specs) != 1:
            raise errors.InvalidRequest(
                f"model {name} takes {len(specs)} inputs, {wanted}: give a dict of arrays by name"
            )
        inputs = {specs[0].name: inputs}
    by_name = {spec.name: spec for spec in specs}
    for given, value in inputs.items():
        if given not in by_name:
            raise errors.InvalidRequest(f"model {name} has no input {given!r}: it takes {wanted}")
        yield by_name[given], fit(value, by_name[given])


def fit(value: npt.ArrayLike, spec: model.TensorSpec) -> np.ndarray:
    """`value` with the datatype of `spec`. An array is cast only where no value can change; Python's own numbers as numpy would.

    BYTES take strings (as UTF-8) and bytes; BF16 its bits as uint16. Raises InvalidRequest.
    """
    wanted = tensors.dtype(spec.datatype)
    array = _array(value, spec, object if wanted.hasobject else None)
    if wanted.hasobject:
        return _encoded(array, spec)
    if array.dtype == wanted:
        return array
    is_typed = isinstance(value, np.ndarray | np.generic)
    cast = _cast(array, wanted, is_typed=is_typed)
    if cast is None:
        remedy = (
            f"; if that is meant, give .astype(np.{wanted})"
            if array.dtype.kind == wanted.kind
            else ""
        )
        raise errors.InvalidRequest(
            f"input {spec.name} wants {spec.datatype}: {array.dtype} can't be cast to it without loss{remedy}"
        )
    return cast


def _array(value: npt.ArrayLike, spec: model.TensorSpec, dtype: type[object] | None) -> np.ndarray:
    try:
        return np.asarray(value) if isinstance(value, np.ndarray) else np.asarray(value, dtype)
    except ValueError as failure:
        raise errors.InvalidRequest(f"input {spec.name}: rows of different lengths") from failure


def _encoded(array: np.ndarray, spec: model.TensorSpec) -> np.ndarray:
    """An object array of bytes."""
    encoded = np.empty(array.shape, object)
    for place, element in np.ndenumerate(array):
        if not isinstance(element, str | bytes):
            raise errors.InvalidRequest(
                f"input {spec.name} wants BYTES: {element!r} is neither a string nor bytes"
            )
        encoded[place] = element.encode() if isinstance(element, str) else element
    return encoded


def _cast(array: np.ndarray, wanted: np.dtype[Any], *, is_typed: bool) -> np.ndarray | None:
    """Nothing where something would be lost."""
    if array.dtype.kind == "f":
        return _cast_floats(array, wanted, is_typed=is_typed)
    if array.dtype.kind not in "iu" or wanted.kind not in "iuf":
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(wanted)
        # Through the float and back: comparing an integer with a float rounds the integer first.
        seen = cast.astype(array.dtype) if wanted.kind == "f" else cast
    return cast if np.array_equal(seen, array) else None


def _cast_floats(array: np.ndarray, wanted: np.dtype[Any], *, is_typed: bool) -> np.ndarray | None:
    """Who wrote `0.1` in Python means the model's nearest number; who made an array of float64 may mean all its digits."""
    is_empty_list = not is_typed and not array.size
    is_allowed = is_empty_list or (
        wanted.kind == "f" and (not is_typed or np.can_cast(array.dtype, wanted))
    )
    if not is_allowed:
        return None
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    return cast if np.array_equal(np.isfinite(cast), np.isfinite(array)) else None


def of_answer(answer: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    """The outputs by name, raw or typed, for the caller to keep and change. BYTES is an object array of bytes; BF16 becomes float32.

    Raises InvalidRequest for a broken answer.
    """
    raws = iter(answer.raw_output_contents)
    return {output.name: _output(output, next(raws, None)) for output in answer.outputs}


def _output(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes | None) -> np.ndarray:
    shape = tuple(output.shape)
    if raw is None:
        values = getattr(output.contents, inference.CONTENTS[output.datatype])
        return np.array(values, tensors.dtype(output.datatype)).reshape(shape)
    array = tensors.from_raw(raw, output.datatype, shape, output.name)
    return (
        (array.astype(np.uint32) << 16).view(np.float32)
        if output.datatype == "BF16"
        else array.copy()
    )
