"""Convert JSON values to arrays of a datatype, and back.

Integers never wrap around and types are never guessed; floats are rounded to the datatype.

JSON has no NaN and no infinities. As TensorFlow Serving and Triton do, the words NaN, Infinity and
-Infinity stand for them, which Python's and RapidJSON's parsers take.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from meshserve import errors
from meshserve.protocol import tensors

SHOWN_MAX = 40
"""Characters of a wrong value that an error shows."""

BASE64_KEY = "b64"
"""The key of V1's form for bytes that are not text: `{"b64": "…"}`."""

BASE64_ALPHABET = bytes.maketrans(b"-_", b"+/")
"""The table that translates the web-safe base64 alphabet to the standard one (RFC 4648)."""

PIECE_VALUES = 1 << 15
"""Values that C code converts at once, in a ms or so: meanwhile no other thread runs."""

WORDS = (b"NaN", b"Infinity")
NULL = re.compile(b"null")
END: Any = object()

_ACCEPTED: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int}), "whole numbers"),
    "u": (frozenset({int}), "whole numbers"),
    "f": (frozenset({int, float, type(None)}), "numbers"),
    "O": (frozenset({str, dict}), "strings"),
}


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body; NaN and infinities are numbers. Raises InvalidRequest."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Python's parser is slower, so it is asked only where it may take what orjson refused.
        if not any(word in body for word in WORDS):
            raise errors.InvalidRequest(f"the body is not JSON: {error}") from None
        document = _parse_with_words(body)
    if not isinstance(document, dict):
        raise errors.InvalidRequest(f"the body must be a JSON object, not {_shown(document)}")
    return document


def _parse_with_words(body: bytes) -> Any:
    """Parse a body by Python's slower parser, which accepts NaN and infinities."""
    try:
        # Decoded here, because `json` itself would take UTF-16 and UTF-32 as well.
        document = json.loads(body.decode(), parse_float=_finite)
        if b"\\u" in body:
            # Raises for half a surrogate pair, which orjson refuses too.
            json.dumps(document, ensure_ascii=False).encode()
    # UnicodeError and JSONDecodeError are ValueErrors.
    except (ValueError, RecursionError) as error:
        raise errors.InvalidRequest(f"the body is not JSON: {error}") from None
    return document


def _finite(digits: str) -> float:
    """Return the number. Raises ValueError if no float is as large."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:SHOWN_MAX]} is too large")
    return number


def dump(document: Any, *, nan: bytes = b"NaN") -> bytes:
    """Return the JSON of a document with what `flat_values` and `nested_values` return.

    Infinities become the words Infinity and -Infinity, NaN what `nan` says.
    """
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    # orjson writes null for NaN and infinities. Few answers have a null, so this check is enough.
    if b"null" not in text:
        return text
    return orjson.dumps(_with_words(document, nan), option=orjson.OPT_SERIALIZE_NUMPY)


def _with_words(value: Any, nan: bytes) -> Any:
    """Return the value with all numbers that are not finite as fragments of JSON."""
    match value:
        case dict():
            return {key: _with_words(entry, nan) for key, entry in value.items()}
        case list() | tuple():
            return [_with_words(entry, nan) for entry in value]
        case float() | np.floating():
            return value if np.isfinite(value) else orjson.Fragment(_word(float(value), nan))
        case np.ndarray() if value.dtype.kind == "f":
            return _fragment(value, nan)
    return value


def _fragment(array: np.ndarray, nan: bytes) -> orjson.Fragment:
    """Return the array's JSON. Finite numbers keep the digits that orjson gives their datatype."""
    words: Iterable[bytes] = (_word(number, nan) for number in array[~np.isfinite(array)].tolist())
    remaining = iter(words)
    text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.Fragment(NULL.sub(lambda _: next(remaining), text))


def _word(number: float, nan: bytes) -> bytes:
    if math.isnan(number):
        return nan
    return b"Infinity" if number > 0 else b"-Infinity"


def to_array(values: Any, datatype: str, name: str) -> np.ndarray:
    """Return the array in nested lists, in their shape and with the datatype's dtype.

    null is NaN for floating point. Raises InvalidRequest for other values that do not fit.
    """
    elements, shape = _flatten(values, name)
    return _convert(elements, datatype, name).reshape(shape)


def natural_datatype(values: Any, name: str, floats: str) -> str:
    """Return the datatype that nested values have by themselves; `floats` is that of fractions.

    Whole numbers are INT64, null is a number. Raises InvalidRequest for values of several kinds.
    """
    kinds = {type(value) for value in _innermost(values)}
    for datatype, taken in (("BYTES", {str, dict}), ("BOOL", {bool}), ("INT64", {int})):
        if kinds and kinds <= taken:
            return datatype
    if kinds <= {int, float, type(None)}:
        return floats
    raise errors.InvalidRequest(f"input {name!r} must hold numbers, texts or booleans alone")


def whole_datatype(values: Any) -> str | None:
    """Return INT64 or UINT64 if it holds all nested values, which are whole; None otherwise."""
    first = values
    while type(first) is list and first:
        first = first[0]
    # Most requests begin with a fraction, so the others need not be looked at.
    if type(first) is not int:
        return None
    elements = _innermost(values)
    if not {int}.issuperset(map(type, elements)):
        return None
    fitting = (
        datatype
        for datatype in ("INT64", "UINT64")
        if (limits := np.iinfo(tensors.DTYPES[datatype].str)).min <= min(elements)
        and max(elements) <= limits.max
    )
    return next(fitting, None)


def to_flat_array(values: Any, datatype: str, name: str) -> np.ndarray:
    """Return the innermost values in their order, however they are nested, in one dimension.

    null is NaN for floating point, and None among texts. Raises InvalidRequest for other values
    that do not fit.
    """
    elements = _innermost(values)
    if datatype != "BYTES" or None not in elements:
        return _convert(elements, datatype, name)
    present = [value for value in elements if value is not None]
    array = np.empty(len(elements), object)
    array[[value is not None for value in elements]] = _convert(present, datatype, name)
    return array


def _innermost(values: Any) -> list[Any]:
    """Return the innermost values in their order."""
    level = values if type(values) is list else [values]
    while level and all(type(value) is list for value in level):
        level = list(itertools.chain.from_iterable(level))
    if not any(type(value) is list for value in level):
        return level
    # Unevenly nested lists are walked value by value, in a time that does not grow with depth.
    elements = []
    open_lists = [iter(level)]
    while open_lists:
        value = next(open_lists[-1], END)
        if value is END:
            open_lists.pop()
        elif type(value) is list:
            open_lists.append(iter(value))
        else:
            elements.append(value)
    return elements


def _convert(elements: list[Any], datatype: str, name: str) -> np.ndarray:
    """Return the values in one dimension, with the datatype's dtype."""
    if len(elements) > PIECE_VALUES:
        begins = range(0, len(elements), PIECE_VALUES)
        pieces = (elements[begin : begin + PIECE_VALUES] for begin in begins)
        return np.concatenate([_convert(piece, datatype, name) for piece in pieces])
    kind = np.dtype("f4") if datatype == "BF16" else tensors.dtype(datatype)
    accepted, expected = _ACCEPTED[kind.kind]
    # Exact types, because True is an int; and checked in C, because values may be millions.
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
    return tensors.bfloat16_bits(array) if datatype == "BF16" else array


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
    # Convert by way of FP64, which holds every JSON number, and refuse numbers that overflow.
    too_large = errors.InvalidRequest(f"input {name!r} has values out of the range of {datatype}")
    try:
        exact = np.array(values, "f8")
    except OverflowError:
        raise too_large from None
    # An overflow is looked for below, where it is told from an infinity that was sent.
    with np.errstate(over="ignore"):
        array = exact.astype(kind)
    rounded = array
    if datatype == "BF16":
        rounded = tensors.bfloat16_values(tensors.bfloat16_bits(array))
    is_infinite = np.isinf(rounded)
    if is_infinite.any() and np.isfinite(exact[is_infinite]).any():
        raise too_large
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
    """Return the bytes in V1's form: either alphabet of RFC 4648, padded or not."""
    text = value.get(BASE64_KEY)
    if len(value) != 1 or not isinstance(text, str):
        raise errors.InvalidRequest(
            f'input {name!r} must hold strings for BYTES, or {{"{BASE64_KEY}": "<base64>"}}, '
            f"not {_shown(value)}"
        )
    try:
        # Without the line breaks that MIME's encoders write, and that strict decoding refuses.
        digits = text.encode("ascii").translate(BASE64_ALPHABET, b"\r\n").rstrip(b"=")
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except ValueError:
        raise errors.InvalidRequest(
            f"input {name!r}: {_shown(text)} is not base64 (A-Z a-z 0-9 and + / or - _, "
            "with or without = at its end)"
        ) from None


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


def flat_values(array: np.ndarray, datatype: str, name: str) -> Any:
    """Return the elements of an array of any shape, row by row, as one list for `dump`.

    NaN is null. Raises InvalidRequest for bytes that are not text.
    """
    if array.dtype.kind in "OSU":
        texts = array.reshape(-1)
        return _by_pieces(texts, lambda piece: [_as_text(text, name) for text in piece], b"null")
    return _by_pieces(_numbers(array, datatype).ravel(), lambda numbers: numbers, b"null")


def nested_values(array: np.ndarray, datatype: str) -> Any:
    """Return the elements in lists nested as the array's shape, for `dump`.

    Bytes that are not text become `{"b64": "…"}`.
    """
    if array.dtype.kind in "OSU":
        return _by_pieces(array, _nested_texts, b"NaN")
    numbers = _numbers(array, datatype)
    # orjson takes scalars, but no array without dimensions.
    return _by_pieces(numbers, lambda piece: piece if piece.ndim else piece[()], b"NaN")


def row_values(array: np.ndarray, datatype: str) -> Iterator[Any]:
    """Yield for each row of an array of any shape but () what `nested_values` returns for it."""
    if array.dtype.kind not in "OSU":
        return iter(_numbers(array, datatype))
    if array.ndim == 1:
        return map(_as_text_or_base64, array)
    return (nested_values(row, datatype) for row in array)


def join_rows(rows: Iterable[Any], at_once: int) -> Any:
    """Return the list of the rows for `dump`, written in pieces if they are more than `at_once`."""
    remaining = iter(rows)
    pieces = iter(lambda: list(itertools.islice(remaining, at_once)), [])
    first, second = next(pieces, []), next(pieces, [])
    return _join(map(dump, itertools.chain([first, second], pieces))) if second else first


def _nested_texts(array: np.ndarray) -> Any:
    texts = np.empty(array.size, object)
    texts[:] = [_as_text_or_base64(element) for element in array.flat]
    return texts.reshape(array.shape).tolist()


def _by_pieces(array: np.ndarray, convert: Callable[[np.ndarray], Any], nan: bytes) -> Any:
    """Return the array converted for `dump`; a big one is written here, piece by piece.

    Python's locks are free between the pieces, so that other threads run.
    """
    if array.size <= PIECE_VALUES:
        return convert(array)
    row_size = math.prod(array.shape[1:])
    if row_size > PIECE_VALUES:
        return [_by_pieces(row, convert, nan) for row in array]
    rows = PIECE_VALUES // row_size
    pieces = (array[begin : begin + rows] for begin in range(0, len(array), rows))
    return _join(dump(convert(piece), nan=nan) for piece in pieces)


def _join(lists: Iterable[bytes]) -> orjson.Fragment:
    """Return the JSON of one list with the values of several, none of which is empty."""
    return orjson.Fragment(b"[%b]" % b",".join([text[1:-1] for text in lists]))


def _numbers(array: np.ndarray, datatype: str) -> np.ndarray:
    """Return the numbers contiguous and in the machine's byte order, as `dump` needs them."""
    if datatype == "BF16":
        array = tensors.bfloat16_values(array)
    # By its size: ONNX Runtime's INT64 is numpy's `longlong`, whose scalars orjson does not take.
    # Not ascontiguousarray: it would give a scalar a dimension.
    return np.asarray(array, f"={array.dtype.kind}{array.dtype.itemsize}", order="C")


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
