"""Codecs of MLServer's Python API: payloads to numpy, texts, dates and back.

They do what those of `mlserver.codecs` 1.7 do, and are found by the same content types. A codec
that a model registers is found for that model alone: another may have one of the same name.
"""

from __future__ import annotations

import base64
import binascii
import contextvars
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, get_args, get_origin

import numpy as np

from meshserve.runtimes import mlserver_types, user_code

C = TypeVar("C")

DECODED = "_decoded_payload"
"""The attribute of a payload's parameters that keeps what it was decoded to."""

OWNER: contextvars.ContextVar[str] = contextvars.ContextVar("owner", default="")
"""The package of the model whose code runs."""

_NUMPY = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool"}


class CodecError(mlserver_types.MLServerError):
    """A payload can't be decoded or encoded."""

    def __init__(self, msg: str) -> None:
        super().__init__(f"There was an error encoding / decoding the payload: {msg}")


class CodecNotFound(mlserver_types.MLServerError):
    """No codec is known for a payload."""

    def __init__(self, name: str | None = None, payload_type: str | None = None) -> None:
        words = " ".join(
            part
            for part in (
                f"with name '{name}'" if name else "",
                f"with type {payload_type}" if payload_type else "",
            )
            if part
        )
        super().__init__(f"Codec not found for field {words}")


class InputCodec:
    """Converts one input or output. Models may write their own."""

    ContentType: ClassVar[str] = ""
    TypeHint: ClassVar[Any] = type(None)

    @classmethod
    def can_encode(cls, payload: Any) -> bool:  # noqa: ARG003 an implementation needs it
        """Return whether a value is of this codec's type."""
        return False

    @classmethod
    def encode_output(cls, name: str, payload: Any, **options: Any) -> Any:
        """Return a ResponseOutput. Raises NotImplementedError."""
        raise NotImplementedError

    @classmethod
    def decode_output(cls, response_output: Any) -> Any:
        """Return the value in a ResponseOutput."""
        return cls.decode_input(response_output)

    @classmethod
    def encode_input(cls, name: str, payload: Any, **options: Any) -> Any:
        """Return a RequestInput."""
        output = cls.encode_output(name, payload, **options)
        return mlserver_types.RequestInput(**dict(output))

    @classmethod
    def decode_input(cls, request_input: Any) -> Any:
        """Return the value in a RequestInput. Raises NotImplementedError."""
        raise NotImplementedError


class RequestCodec:
    """Converts whole requests and answers. Models may write their own."""

    ContentType: ClassVar[str] = ""
    TypeHint: ClassVar[Any] = type(None)

    @classmethod
    def can_encode(cls, payload: Any) -> bool:  # noqa: ARG003 an implementation needs it
        """Return whether a value is of this codec's type."""
        return False

    @classmethod
    def encode_response(
        cls, model_name: str, payload: Any, model_version: str | None = None, **options: Any
    ) -> Any:
        """Return an InferenceResponse. Raises NotImplementedError."""
        raise NotImplementedError

    @classmethod
    def decode_response(cls, response: Any) -> Any:
        """Return the value in an InferenceResponse. Raises NotImplementedError."""
        raise NotImplementedError

    @classmethod
    def encode_request(cls, payload: Any, **options: Any) -> Any:
        """Return an InferenceRequest. Raises NotImplementedError."""
        raise NotImplementedError

    @classmethod
    def decode_request(cls, request: Any) -> Any:
        """Return the value in an InferenceRequest. Raises NotImplementedError."""
        raise NotImplementedError


_INPUTS: dict[tuple[str, str], Any] = {}
_REQUESTS: dict[tuple[str, str], Any] = {}
"""Codecs by the package of the model that registered them, "" for ours, and content type."""


def _owner_of(codec: Any) -> str:
    module = str(getattr(codec, "__module__", ""))
    return module.partition(".")[0] if module.startswith(user_code.PREFIX) else ""


def register_input_codec(codec: C) -> C:
    """Make a codec known by its content type, and return it."""
    _INPUTS[_owner_of(codec), codec.ContentType] = codec  # type: ignore[attr-defined]
    return codec


def register_request_codec(codec: C) -> C:
    """Make a codec known by its content type, and return it."""
    _REQUESTS[_owner_of(codec), codec.ContentType] = codec  # type: ignore[attr-defined]
    return codec


def forget(owner: str) -> None:
    """Drop the codecs that a model registered."""
    for codecs in (_INPUTS, _REQUESTS):
        # Without an owner these are the codecs that all models share.
        for key in [key for key in codecs if owner and key[0] == owner]:
            del codecs[key]


def _visible(codecs: Mapping[tuple[str, str], Any]) -> Iterator[Any]:
    """Yield the codecs that the running model sees, its own first."""
    owners = (OWNER.get(), "") if OWNER.get() else ("",)
    for owner in owners:
        yield from (codec for key, codec in codecs.items() if key[0] == owner)


def _first(codecs: Mapping[tuple[str, str], Any], is_meant: Callable[[Any], bool]) -> Any:
    return next((codec for codec in _visible(codecs) if is_meant(codec)), None)


def find_input_codec(content_type: str | None = None, payload: Any = None) -> Any:
    """Return the codec of a content type, or of a value; None if there is none."""
    if content_type:
        return _first(_INPUTS, lambda codec: codec.ContentType == content_type)
    return _first(_INPUTS, lambda codec: codec.can_encode(payload))


def find_request_codec(content_type: str | None = None, payload: Any = None) -> Any:
    """Return the codec of a content type, or of a value; None if there is none."""
    if content_type:
        return _first(_REQUESTS, lambda codec: codec.ContentType == content_type)
    return _first(_REQUESTS, lambda codec: codec.can_encode(payload))


def find_by_hint(hint: Any) -> Any:
    """Return the codec of a type hint such as `np.ndarray`, None if there is none."""
    for codecs in (_INPUTS, _REQUESTS):
        codec = _first(codecs, lambda codec: _is_hint(codec, hint))
        if codec is not None:
            return codec
    return None


def _is_hint(codec: Any, hint: Any) -> bool:
    # Frames are known by their name, so that pandas is imported by whoever uses it.
    name = f"{getattr(hint, '__module__', '')}.{getattr(hint, '__name__', '')}"
    if name.startswith("pandas.") and name.endswith(".DataFrame"):
        return bool(codec.TypeHint == "pandas.DataFrame")
    # typing's List[str] is another object than list[str].
    items = get_args(hint)
    plain = list[*items] if get_origin(hint) is list else hint  # type: ignore[valid-type]
    return bool(codec.TypeHint == plain)


def values_in(payload: Any) -> Any:
    """Return the values of an input or output as they came: a list, or a single value."""
    return getattr(payload.data, "root", payload.data)


def as_list(values: Any) -> list[Any]:
    """Return values as a list; a single one is a list of one."""
    return values if isinstance(values, list) else [values]


def is_list_of(payload: Any, kind: type) -> bool:
    """Return whether a value is a list of nothing but `kind`."""
    return isinstance(payload, list) and all(isinstance(item, kind) for item in payload)


def with_rows(shape: list[int]) -> list[int]:
    """Return a shape as MLServer writes it: [rows] is [rows, 1]."""
    return shape if len(shape) > 1 else [*shape, 1]


def make_output(
    name: str, values: list[Any], datatype: str, shape: list[int], content_type: str | None
) -> mlserver_types.ResponseOutput:
    """Return an output with these values, in one list whatever its shape."""
    said = {} if content_type is None else {"parameters": {"content_type": content_type}}
    return mlserver_types.ResponseOutput.model_validate(
        {"name": name, "datatype": datatype, "shape": shape, "data": values, **said}
    )


@register_input_codec
class NumpyCodec(InputCodec):
    """Arrays; the content type `np`."""

    ContentType = "np"
    TypeHint = np.ndarray

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        """Return whether it is an array."""
        return isinstance(payload, np.ndarray)

    @classmethod
    def encode_output(cls, name: str, payload: np.ndarray, **_options: Any) -> Any:
        """Return an output with the shape of the array, [rows, 1] for [rows]; NaN is None."""
        values = payload.ravel().tolist()
        if payload.dtype.kind in "US":
            values = [item.encode() if isinstance(item, str) else item for item in values]
        elif payload.dtype.kind == "f":
            # NaN alone is unlike itself.
            values = [None if item != item else item for item in values]  # noqa: PLR0124
        shape = with_rows(list(payload.shape))
        return make_output(name, values, datatype_of(payload.dtype), shape, cls.ContentType)

    @classmethod
    def decode_input(cls, request_input: Any) -> np.ndarray:
        """Return an array of the input's shape and datatype; texts are numpy's texts."""
        values = values_in(request_input)
        dtype = numpy_type(request_input)
        if dtype.kind == "S" and is_list_of(values, bytes):
            # MLServer takes bytes for those of items of one size, which the shape ends with.
            parts = [np.frombuffer(item, dtype) for item in values]
            joined: np.ndarray = np.concatenate(parts)
            return joined.reshape(request_input.shape)
        return np.array(values, dtype).reshape(request_input.shape)


def datatype_of(dtype: np.dtype) -> str:
    """Return the protocol's datatype of numpy's type."""
    if dtype.kind in "OSU":
        return "BYTES"
    known = {name: datatype for datatype, name in _NUMPY.items()}
    return known.get(str(dtype), str(dtype).upper())


def numpy_type(payload: Any) -> np.dtype:
    """Return numpy's type for the values of an input or output."""
    datatype = str(payload.datatype)
    if datatype != "BYTES":
        return np.dtype(_NUMPY.get(datatype, datatype.lower()))
    if is_list_of(values_in(payload), str):
        return np.dtype(str)
    return np.dtype((bytes, payload.shape[-1]))


class _TextCodec(InputCodec):
    """The common part of codecs whose values travel as texts, one an element."""

    @classmethod
    def to_text(cls, item: Any) -> str | bytes:
        """Return the text of one value."""
        raise NotImplementedError

    @classmethod
    def from_text(cls, item: Any) -> Any:
        """Return the value of one text."""
        raise NotImplementedError

    @classmethod
    def encode_output(cls, name: str, payload: Any, use_bytes: bool = True, **_options: Any) -> Any:
        """Return an output of the shape [items, 1], as `bytes` or, without `use_bytes`, `str`."""
        texts = [cls.to_text(item) for item in payload]
        values = [_as_bytes(text) if use_bytes else _as_text(text) for text in texts]
        return make_output(name, values, "BYTES", [len(texts), 1], cls.ContentType)

    @classmethod
    def decode_input(cls, request_input: Any) -> list[Any]:
        """Return the values in a list, whatever the input's shape."""
        return [cls.from_text(item) for item in as_list(values_in(request_input))]


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _as_text(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text


@register_input_codec
class StringCodec(_TextCodec):
    """Texts; the content type `str`."""

    ContentType = "str"
    TypeHint = list[str]

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        """Return whether it is a list of texts."""
        return is_list_of(payload, str)

    @classmethod
    def to_text(cls, item: Any) -> str | bytes:
        """Return the text as it is. Raises AttributeError for what is none."""
        return item if isinstance(item, bytes) else str.encode(item)

    @classmethod
    def from_text(cls, item: Any) -> Any:
        """Return the text; None stays None."""
        return item.decode() if isinstance(item, bytes) else item


@register_input_codec
class Base64Codec(_TextCodec):
    """Bytes in base64; the content type `base64`."""

    ContentType = "base64"
    TypeHint = list[bytes]

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        """Return whether it is a list of bytes."""
        return is_list_of(payload, bytes)

    @classmethod
    def to_text(cls, item: Any) -> str | bytes:
        """Return the base64 of bytes, or of a text in ASCII."""
        return base64.b64encode(item.encode("ascii") if isinstance(item, str) else item)

    @classmethod
    def from_text(cls, item: Any) -> bytes:
        """Return the bytes; what is no base64 stays as it is."""
        raw: bytes = item.encode("ascii") if isinstance(item, str) else item
        try:
            return base64.b64decode(raw, validate=True)
        except binascii.Error:
            return raw


@register_input_codec
class DatetimeCodec(_TextCodec):
    """Dates in ISO 8601; the content type `datetime`."""

    ContentType = "datetime"
    TypeHint = list[str | dt.datetime]

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        """Return whether it is a list of dates."""
        return is_list_of(payload, dt.datetime)

    @classmethod
    def to_text(cls, item: Any) -> str | bytes:
        """Return the date in ISO 8601; a text stays as it is."""
        return item if isinstance(item, str) else str(item.isoformat())

    @classmethod
    def from_text(cls, item: Any) -> dt.datetime:
        """Return the date. Raises ValueError."""
        return dt.datetime.fromisoformat(_as_text(item))
