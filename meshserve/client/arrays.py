"""A caller's values as tensors, and tensors as arrays.

Values are cast to the model's datatypes if nothing is lost; otherwise an error names the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from meshserve import errors
from meshserve.client import columns
from meshserve.core.values import model
from meshserve.protocol import inference, tensors
from meshserve.protocol.pb import inference_pb2 as pb

TABLE_RANK = 2
TORCH = "pytorch_libtorch"

Inputs: TypeAlias = "npt.ArrayLike | Mapping[str, npt.ArrayLike]"


class TakenInputs(NamedTuple):
    """The inputs that a model takes, as its metadata has them.

    `is_loose`: they may have other datatypes, and those of a data frame's columns other names.
    `platform` is the model's.
    """

    specs: Sequence[model.TensorSpec]
    is_loose: bool = False
    platform: str = ""


def to_tensors(
    name: str, inputs: Any, taken: TakenInputs
) -> Iterator[tuple[model.TensorSpec, np.ndarray]]:
    """Yield each input of model `name` with its specification; missing texts are None.

    A data frame's columns are inputs. If datatypes are loose, values keep their own, else they are
    cast as by `fit_all`. Raises InvalidRequest as `fit_all` and `columns.natural` do.
    """
    if columns.is_frame(inputs):
        if not columns.has_names(inputs):
            inputs = inputs.to_numpy()
        elif not taken.is_loose:
            yield from _fit_frame(name, inputs, taken.specs)
            return
        else:
            inputs = columns.of_frame(inputs)
    if taken.is_loose:
        yield from _natural_all(name, inputs, taken)
    else:
        yield from fit_all(name, inputs, taken.specs)


def _fit_frame(
    name: str, frame: Any, specs: Sequence[model.TensorSpec]
) -> Iterator[tuple[model.TensorSpec, np.ndarray]]:
    """Yield the columns of a frame, of shape [rows, 1] where the model has columns so."""
    natural = {
        key: columns.natural(key, values).array for key, values in columns.of_frame(frame).items()
    }
    ranks = {spec.name: len(spec.shape) for spec in specs}
    shaped = {
        key: array.reshape(-1, 1) if ranks.get(key) == TABLE_RANK else array
        for key, array in natural.items()
    }
    yield from fit_all(name, shaped, specs)


def _natural_all(
    name: str, inputs: Any, taken: TakenInputs
) -> Iterator[tuple[model.TensorSpec, np.ndarray]]:
    if not isinstance(inputs, Mapping):
        if len(taken.specs) != 1:
            raise errors.InvalidRequest(
                f"model {name} takes {len(taken.specs) or 'undeclared'} inputs: "
                "give a dict of arrays by name, or a data frame"
            )
        inputs = {taken.specs[0].name: inputs}
    # A list of fractions becomes float32 in torch.
    floats = "FP32" if taken.platform == TORCH else "FP64"
    for key, values in inputs.items():
        datatype, array = columns.natural(key, values, floats)
        yield model.TensorSpec(key, datatype, array.shape), array


def fit_all(
    name: str, inputs: Inputs, specs: Sequence[model.TensorSpec]
) -> Iterator[tuple[model.TensorSpec, np.ndarray]]:
    """Yield each input of model `name` with its specification, cast to the specified datatype.

    Shapes are left to the server. Raises InvalidRequest for names and datatypes that do not fit.
    """
    expected = ", ".join(f"{spec.name} ({spec.datatype})" for spec in specs)
    if not isinstance(inputs, Mapping):
        if len(specs) != 1:
            raise errors.InvalidRequest(
                f"model {name} takes {len(specs)} inputs, {expected}: give a dict of arrays by name"
            )
        inputs = {specs[0].name: inputs}
    by_name = {spec.name: spec for spec in specs}
    for key, value in inputs.items():
        if key not in by_name:
            raise errors.InvalidRequest(f"model {name} has no input {key!r}: it takes {expected}")
        yield by_name[key], fit(value, by_name[key])


def fit(value: npt.ArrayLike, spec: model.TensorSpec) -> np.ndarray:
    """Return `value` as an array of its shape and of the dtype for the datatype of `spec`.

    Integers are cast if no value changes, arrays of floats only to wider float types, and Python's
    floats to the nearest number. BYTES takes strings (encoded as UTF-8) and bytes, BF16 takes its
    bits as uint16. Raises InvalidRequest for anything else.
    """
    dtype = tensors.dtype(spec.datatype)
    # Strings become objects at once, because numpy's byte strings lose zero bytes at their end.
    array = _array(value, spec, object if dtype.hasobject else None)
    if dtype.hasobject:
        return _encoded(array, spec)
    if array.dtype == dtype:
        return array
    is_typed = isinstance(value, np.ndarray | np.generic)
    cast = _cast(array, dtype, is_typed=is_typed)
    if cast is None:
        is_same_kind = array.dtype.kind == dtype.kind
        remedy = f"; if that is meant, give .astype(np.{dtype})" if is_same_kind else ""
        raise errors.InvalidRequest(
            f"input {spec.name} wants {spec.datatype}: "
            f"{array.dtype} can't be cast to it without loss{remedy}"
        )
    return cast


def from_answer(answer: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    """Return the outputs by name in their shapes, as arrays that the caller may change.

    BYTES become arrays of dtype object with bytes, BF16 becomes float32. Raises InvalidRequest for
    a broken answer.
    """
    # A server sends raw contents for all outputs, in order, or typed contents in each output.
    raws = iter(answer.raw_output_contents)
    return {output.name: _output(output, next(raws, None)) for output in answer.outputs}


def _array(value: npt.ArrayLike, spec: model.TensorSpec, dtype: type[object] | None) -> np.ndarray:
    try:
        return np.asarray(value) if isinstance(value, np.ndarray) else np.asarray(value, dtype)
    except ValueError as failure:
        raise errors.InvalidRequest(f"input {spec.name}: rows of different lengths") from failure


def _encoded(array: np.ndarray, spec: model.TensorSpec) -> np.ndarray:
    encoded = np.empty(array.shape, object)
    for index, element in np.ndenumerate(array):
        if not isinstance(element, str | bytes):
            raise errors.InvalidRequest(
                f"input {spec.name} wants BYTES: {element!r} is neither a string nor bytes"
            )
        encoded[index] = element.encode() if isinstance(element, str) else element
    return encoded


def _cast(array: np.ndarray, dtype: np.dtype[Any], *, is_typed: bool) -> np.ndarray | None:
    """Return the array with this dtype, or None if a value would change."""
    if array.dtype.kind == "f":
        return _cast_floats(array, dtype, is_typed=is_typed)
    if array.dtype.kind not in "iu" or dtype.kind not in "iuf":
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
        # Floats are cast back: a comparison of integers with floats would round the integers.
        comparable = cast.astype(array.dtype) if dtype.kind == "f" else cast
    return cast if np.array_equal(comparable, array) else None


def _cast_floats(array: np.ndarray, dtype: np.dtype[Any], *, is_typed: bool) -> np.ndarray | None:
    """Return the array with this dtype, or None if it may not be cast or a value overflows.

    A Python float such as `0.1` is rounded to the model's datatype. An array of float64 is not: its
    owner may need all of its digits.
    """
    is_empty_list = not is_typed and not array.size
    is_allowed = is_empty_list or (
        dtype.kind == "f" and (not is_typed or np.can_cast(array.dtype, dtype))
    )
    if not is_allowed:
        return None
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    return cast if np.array_equal(np.isfinite(cast), np.isfinite(array)) else None


def _output(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes | None) -> np.ndarray:
    shape = tuple(output.shape)
    if raw is None:
        values = getattr(output.contents, inference.CONTENTS[output.datatype])
        return np.array(values, tensors.dtype(output.datatype)).reshape(shape)
    array = tensors.from_raw(raw, output.datatype, shape, output.name)
    if output.datatype == "BF16":
        # BF16 is the upper half of a float32.
        return (array.astype(np.uint32) << 16).view(np.float32)
    # The array is a view of the message: a copy outlives it and may be changed.
    return array.copy()
