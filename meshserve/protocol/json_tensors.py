"""JSON values to arrays of a datatype, and back.

Values are never wrapped or guessed; only decimals are rounded, to the datatype's nearest.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from meshserve import errors
from meshserve.protocol import tensors

SHOWN_MAX = 40
"""Characters of a wrong value that an error shows."""

BASE64_KEY = "b64"
"""The key of V1's form for bytes that are not text: `{"b64": "…"}`."""

_ACCEPTED: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int}), "whole numbers"),
    "u": (frozenset({int}), "whole numbers"),
    "f": (frozenset({int, float, type(None)}), "numbers"),
    "O": (frozenset({str, dict}), "strings"),
}


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body. Raises InvalidRequest."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise errors.InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise errors.InvalidRequest(f"the body must be a JSON object, not {_shown(document)}")
    return document


def dump(document: Any) -> bytes:
    """Return the JSON of a document with what `flat_values` and `nested_values` return.

    NaN and infinities, which JSON does not have, become null.
    """
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def to_array(values: Any, datatype: str, name: str) -> np.ndarray:
    """Return the array in nested lists, in their shape and with the datatype's dtype.

    null is NaN for floating point. Raises InvalidRequest for other values that do not fit.
    """
    kind = np.dtype("f4") if datatype == "BF16" else tensors.dtype(datatype)
    elements, shape = _flatten(values, name)
    accepted, expected = _ACCEPTED[kind.kind]
    # Exact types, for True is an instance of int; and in C, for there may be millions.
    if not accepted.issuperset(map(type, elements)):
        wrong = next(value for value in elements if type(value) not in accepted)
        raise errors.InvalidRequest(
            f"input {name!r} must hold {expected} for {datatype}, not {_shown(wrong)}"
        )
    if kind.hasobject:
        array = _encode_texts(elements, name)
    elif kind.kind == "f":
        array = _round(elements, kind, datatype, name)
    else:
        array = _exact(elements, kind, datatype, name)
    return (tensors.bfloat16_bits(array) if datatype == "BF16" else array).reshape(shape)


def _flatten(values: Any, name: str) -> tuple[list[Any], tuple[int, ...]]:
    """Return the innermost values in their order, and the shape of the lists around them."""
    level, shape = [values], list[int]()
    while level and type(level[0]) is list:
        if any(type(row) is not list or len(row) != len(level[0]) for row in level):
            raise errors.InvalidRequest(f"input {name!r} has rows of different lengths")
        shape.append(len(level[0]))
        level = list(itertools.chain.from_iterable(level))
    tensors.element_count(shape, name)
    return level, tuple(shape)


def _round(
    values: Sequence[float | None], kind: np.dtype[np.generic], datatype: str, name: str
) -> np.ndarray:
    # Through FP64, which holds every JSON number; what overflows is refused below.
    with np.errstate(over="ignore"):
        array = np.array(values, "f8").astype(kind)
    rounded = array
    if datatype == "BF16":
        rounded = tensors.bfloat16_values(tensors.bfloat16_bits(array))
    if np.isinf(rounded).any():
        raise errors.InvalidRequest(f"input {name!r} has values out of the range of {datatype}")
    return array


def _exact(
    values: Sequence[int], kind: np.dtype[np.generic], datatype: str, name: str
) -> np.ndarray:
    try:
        return np.array(values, kind)
    except OverflowError:
        limits = np.iinfo(kind.str)
        raise errors.InvalidRequest(
            f"input {name!r} has values out of the range of {datatype}, "
            f"{limits.min} to {limits.max}"
        ) from None


def _encode_texts(values: Sequence[str | dict[str, Any]], name: str) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = [
        value.encode() if isinstance(value, str) else _from_base64(value, name) for value in values
    ]
    return array


def _from_base64(value: dict[str, Any], name: str) -> bytes:
    text = value.get(BASE64_KEY)
    try:
        if len(value) == 1 and isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise errors.InvalidRequest(
        f'input {name!r} must hold strings for BYTES, or {{"{BASE64_KEY}": "<base64>"}}, '
        f"not {_shown(value)}"
    )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


def flat_values(array: np.ndarray, datatype: str, name: str) -> Any:
    """Return the elements of an array of any shape, row by row, as one list for `dump`.

    Raises InvalidRequest for bytes that are not text.
    """
    if array.dtype.kind in "OSU":
        return [_as_text(element, name) for element in array.flat]
    return _numbers(array, datatype).ravel()


def nested_values(array: np.ndarray, datatype: str) -> Any:
    """Return the elements in lists nested as the array's shape, for `dump`.

    Bytes that are not text become `{"b64": "…"}`.
    """
    if array.dtype.kind in "OSU":
        texts = np.empty(array.size, object)
        texts[:] = [_as_text_or_base64(element) for element in array.flat]
        return texts.reshape(array.shape).tolist()
    numbers = _numbers(array, datatype)
    return numbers if numbers.ndim else numbers[()]


def _numbers(array: np.ndarray, datatype: str) -> np.ndarray:
    """Return the numbers contiguous and in the machine's byte order, as `dump` needs them."""
    numbers = tensors.bfloat16_values(array) if datatype == "BF16" else array
    # Not ascontiguousarray: it would give a scalar a dimension.
    return np.asarray(numbers, numbers.dtype.newbyteorder("="), order="C")


def _as_text(element: object, name: str) -> str:
    try:
        return tensors.as_bytes(element).decode()
    except UnicodeDecodeError:
        raise errors.InvalidRequest(
            f"output {name!r} holds bytes that are not text: ask for binary data"
        ) from None


def _as_text_or_base64(element: object) -> str | dict[str, str]:
    encoded = tensors.as_bytes(element)
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return {BASE64_KEY: base64.b64encode(encoded).decode()}
