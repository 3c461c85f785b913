"""JSON values ↔ arrays of a datatype: nothing is wrapped or guessed on the way in; only decimals are rounded, to the datatype's nearest."""

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
"""Characters of a wrong value that are shown: enough for it to be recognised."""

BASE64_KEY = "b64"
"""The key of V1's form for bytes that are not text: `{"b64": "…"}`."""

_TAKEN: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int}), "whole numbers"),
    "u": (frozenset({int}), "whole numbers"),
    "f": (frozenset({int, float, type(None)}), "numbers"),
    "O": (frozenset({str, dict}), "strings"),
}


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises InvalidRequest."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise errors.InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise errors.InvalidRequest(f"the body must be a JSON object, not {_shown(document)}")
    return document


def dump(document: Any) -> bytes:
    """JSON of a document that may hold what `flat` and `nested` give; NaN and infinities, which JSON does not know, become null."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def to_array(values: Any, datatype: str, name: str) -> np.ndarray:
    """The array in nested lists, as nested as it came; null is NaN where that is a number. Raises InvalidRequest for what does not fit."""
    wanted = np.dtype("f4") if datatype == "BF16" else tensors.dtype(datatype)
    found, shape = _flattened(values, name)
    taken, expected = _TAKEN[wanted.kind]
    if not taken.issuperset(map(type, found)):
        wrong = next(value for value in found if type(value) not in taken)
        raise errors.InvalidRequest(
            f"input {name!r} must hold {expected} for {datatype}, not {_shown(wrong)}"
        )
    if wanted.kind == "f":
        made = _floats(found, wanted, datatype, name)
    else:
        made = _texts(found, name) if wanted.hasobject else _exact(found, wanted, datatype, name)
    return (tensors.bfloat16_bits(made) if datatype == "BF16" else made).reshape(shape)


def _flattened(values: Any, name: str) -> tuple[list[Any], tuple[int, ...]]:
    """The innermost values in their order, and the shape of the lists around them."""
    level, shape = [values], list[int]()
    while level and type(level[0]) is list:
        if any(type(row) is not list or len(row) != len(level[0]) for row in level):
            raise errors.InvalidRequest(f"input {name!r} has rows of different lengths")
        shape.append(len(level[0]))
        level = list(itertools.chain.from_iterable(level))
    tensors.element_count(shape, name)
    return level, tuple(shape)


def _floats(
    values: Sequence[float | None], wanted: np.dtype[np.generic], datatype: str, name: str
) -> np.ndarray:
    with np.errstate(over="ignore"):
        made = np.array(values, "f8").astype(wanted)
    if np.isinf(made).any() or (
        datatype == "BF16" and np.isinf(tensors.bfloat16_values(tensors.bfloat16_bits(made))).any()
    ):
        raise errors.InvalidRequest(f"input {name!r} has values out of the range of {datatype}")
    return made


def _exact(
    values: Sequence[int], wanted: np.dtype[np.generic], datatype: str, name: str
) -> np.ndarray:
    try:
        return np.array(values, wanted)
    except OverflowError:
        limits = np.iinfo(wanted.str)
        raise errors.InvalidRequest(
            f"input {name!r} has values out of the range of {datatype}, {limits.min} to {limits.max}"
        ) from None


def _texts(values: Sequence[str | dict[str, Any]], name: str) -> np.ndarray:
    made = np.empty(len(values), object)
    made[:] = [
        value.encode() if isinstance(value, str) else _from_base64(value, name) for value in values
    ]
    return made


def _from_base64(value: dict[str, Any], name: str) -> bytes:
    text = value.get(BASE64_KEY)
    try:
        if len(value) == 1 and isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise errors.InvalidRequest(
        f'input {name!r} must hold strings for BYTES, or {{"{BASE64_KEY}": "<base64>"}}, not {_shown(value)}'
    )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


def flat_values(found: np.ndarray, datatype: str, name: str) -> Any:
    """The elements row by row, as one list for `dumped`. Raises InvalidRequest for bytes that are not text."""
    if found.dtype.kind in "OSU":
        return [_text(element, name) for element in found.flat]
    return _numbers(found, datatype).ravel()


def nested_values(found: np.ndarray, datatype: str) -> Any:
    """The elements as nested lists for `dumped`; bytes that are not text become `{"b64": "…"}`."""
    if found.dtype.kind in "OSU":
        told = np.empty(found.size, object)
        told[:] = [_text_or_base64(element) for element in found.flat]
        return told.reshape(found.shape).tolist()
    numbers = _numbers(found, datatype)
    return numbers if numbers.ndim else numbers[()]


def _numbers(found: np.ndarray, datatype: str) -> np.ndarray:
    """Contiguous and in the machine's byte order, as `dumped` needs it."""
    numbers = tensors.bfloat16_values(found) if datatype == "BF16" else found
    # Not ascontiguousarray: it would give a scalar a dimension.
    return np.asarray(numbers, numbers.dtype.newbyteorder("="), order="C")


def _text(element: object, name: str) -> str:
    try:
        return tensors.as_bytes(element).decode()
    except UnicodeDecodeError:
        raise errors.InvalidRequest(
            f"output {name!r} holds bytes that are not text: ask for binary data"
        ) from None


def _text_or_base64(element: object) -> str | dict[str, str]:
    encoded = tensors.as_bytes(element)
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return {BASE64_KEY: base64.b64encode(encoded).decode()}
