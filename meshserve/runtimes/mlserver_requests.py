"""Codecs of whole requests of MLServer's Python API, and what finds the codec of a payload."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from meshserve.runtimes import mlserver_codecs, mlserver_types

INPUT, OUTPUT = "input-1", "output-1"
"""The names that the codecs of a single tensor give it."""

PANDAS = "pandas"
JSON_COLUMN = "pd_json"
"""The content type of a column whose cells are neither numbers nor texts: each is JSON."""


class SingleInputRequestCodec(mlserver_codecs.RequestCodec):
    """Requests and answers of one tensor, by the codec in `InputCodec`."""

    InputCodec: ClassVar[Any] = None

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        """Return whether the tensor's codec takes the value."""
        return bool(cls.InputCodec is not None and cls.InputCodec.can_encode(payload))

    @classmethod
    def encode_response(
        cls, model_name: str, payload: Any, model_version: str | None = None, **options: Any
    ) -> Any:
        """Return an answer with one output."""
        return mlserver_types.PayloadResponse(
            model_name=model_name,
            model_version=model_version,
            parameters=mlserver_types.Parameters(content_type=cls.ContentType),
            outputs=[cls.InputCodec.encode_output(OUTPUT, payload, **options)],
        )

    @classmethod
    def decode_response(cls, response: Any) -> Any:
        """Return the value of the only output. Raises CodecError for several."""
        return cls.InputCodec.decode_output(cls._only(response.outputs, "output"))

    @classmethod
    def encode_request(cls, payload: Any, **options: Any) -> Any:
        """Return a request with one input."""
        return mlserver_types.PayloadRequest(
            inputs=[cls.InputCodec.encode_input(INPUT, payload, **options)],
            parameters=mlserver_types.Parameters(content_type=cls.ContentType),
        )

    @classmethod
    def decode_request(cls, request: Any) -> Any:
        """Return the value of the only input. Raises CodecError for several."""
        only = cls._only(request.inputs, "input")
        return get_decoded(only) if has_decoded(only) else cls.InputCodec.decode_input(only)

    @classmethod
    def _only(cls, tensors: Sequence[Any], kind: str) -> Any:
        if len(tensors) != 1:
            raise mlserver_codecs.CodecError(
                f"The '{cls.ContentType}' codec only supports a single {kind} tensor "
                f"({len(tensors)} were received)"
            )
        return tensors[0]


@mlserver_codecs.register_request_codec
class NumpyRequestCodec(SingleInputRequestCodec):
    """One array; the content type `np`."""

    InputCodec = mlserver_codecs.NumpyCodec
    ContentType = "np"


@mlserver_codecs.register_request_codec
class StringRequestCodec(SingleInputRequestCodec):
    """One list of texts; the content type `str`."""

    InputCodec = mlserver_codecs.StringCodec
    ContentType = "str"


@mlserver_codecs.register_request_codec
class PandasCodec(mlserver_codecs.RequestCodec):
    """Frames, a tensor for each column; the content type `pd`. It needs pandas."""

    ContentType = "pd"
    TypeHint = "pandas.DataFrame"

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        """Return whether it is a frame of pandas."""
        kind = type(payload)
        return kind.__name__ == "DataFrame" and kind.__module__.startswith(PANDAS)

    @classmethod
    def encode_outputs(cls, payload: Any, use_bytes: bool = True) -> list[Any]:
        """Return an output for each column."""
        return [_column_output(payload[name], use_bytes=use_bytes) for name in payload]

    @classmethod
    def encode_response(
        cls, model_name: str, payload: Any, model_version: str | None = None, **options: Any
    ) -> Any:
        """Return an answer with an output for each column."""
        return mlserver_types.PayloadResponse(
            model_name=model_name,
            model_version=model_version,
            parameters=mlserver_types.Parameters(content_type=cls.ContentType),
            outputs=cls.encode_outputs(payload, **options),
        )

    @classmethod
    def encode_request(cls, payload: Any, **options: Any) -> Any:
        """Return a request with an input for each column."""
        return mlserver_types.PayloadRequest(
            parameters=mlserver_types.Parameters(content_type=cls.ContentType),
            inputs=[
                mlserver_types.RequestInput(**dict(output))
                for output in cls.encode_outputs(payload, **options)
            ],
        )

    @classmethod
    def decode_request(cls, request: Any) -> Any:
        """Return a frame with a column for each input."""
        return _frame(request.inputs)

    @classmethod
    def decode_response(cls, response: Any) -> Any:
        """Return a frame with a column for each output."""
        return _frame(response.outputs)


def _frame(tensors: Sequence[Any]) -> Any:
    pandas = importlib.import_module(PANDAS)
    return pandas.DataFrame({tensor.name: _series(pandas, tensor) for tensor in tensors})


def _series(pandas: Any, tensor: Any) -> Any:
    values = mlserver_codecs.values_in(tensor)
    if tensor.parameters is not None and tensor.parameters.content_type == JSON_COLUMN:
        return pandas.Series([json.loads(item) for item in mlserver_codecs.as_list(values)])
    if has_decoded(tensor):
        values = get_decoded(tensor)
    if str(tensor.datatype) == "BYTES":
        return pandas.Series(values)
    if isinstance(values, np.ndarray):
        # pandas makes a series of one dimension only, and a column comes as [rows, 1].
        values = values.reshape(tensor.shape[0], 1).squeeze(axis=1)
    return pandas.Series(values, dtype=mlserver_codecs.numpy_type(tensor))


def _column_output(series: Any, *, use_bytes: bool) -> Any:
    values = series.tolist()
    is_number = series.dtype.kind in "biuf"
    content_type = None
    if is_number:
        datatype = mlserver_codecs.datatype_of(series.dtype)
        # NaN alone is unlike itself.
        values = [None if item != item else item for item in values]  # noqa: PLR0124
    else:
        datatype = "BYTES"
        is_text = all(isinstance(item, (str, bytes)) for item in values)
        content_type = "str" if is_text else JSON_COLUMN
        if not is_text:
            values = [_cell_json(item) for item in values]
        if use_bytes:
            values = [item.encode() if isinstance(item, str) else item for item in values]
    shape = [len(values), 1]
    return mlserver_codecs.make_output(str(series.name), values, datatype, shape, content_type)


def _cell_json(cell: Any) -> str:
    """Return one cell as JSON; a gap, which may be NaN, is null."""
    is_gap = isinstance(cell, float) and math.isnan(cell)
    return json.dumps(None if is_gap else cell, ensure_ascii=False, separators=(",", ":"))


def has_decoded(payload: Any) -> bool:
    """Return whether a payload was decoded before."""
    return payload.parameters is not None and hasattr(payload.parameters, mlserver_codecs.DECODED)


def get_decoded(payload: Any) -> Any:
    """Return what a payload was decoded to, None if it was not."""
    return getattr(payload.parameters, mlserver_codecs.DECODED, None)


def get_decoded_or_raw(payload: Any) -> Any:
    """Return what a payload was decoded to, else its values, or itself if it is no tensor."""
    if has_decoded(payload):
        return get_decoded(payload)
    return getattr(payload, "data", payload)


def _keep(payload: Any, value: Any) -> Any:
    if payload.parameters is None:
        payload.parameters = mlserver_types.Parameters()
    setattr(payload.parameters, mlserver_codecs.DECODED, value)
    return value


def _content_type(payload: Any, declared: Any) -> str | None:
    for source in (payload, declared):
        said = getattr(source, "parameters", None)
        if said is not None and said.content_type:
            return str(said.content_type)
    return None


def decode_request_input(
    request_input: Any, metadata_inputs: Mapping[str, Any] = types.MappingProxyType({})
) -> Any:
    """Return the value of an input by its content type; None without one or without its codec."""
    content_type = _content_type(request_input, metadata_inputs.get(request_input.name))
    codec = mlserver_codecs.find_input_codec(content_type) if content_type else None
    return None if codec is None else _keep(request_input, codec.decode_input(request_input))


def decode_inference_request(
    inference_request: Any,
    model_settings: Any = None,
    metadata_inputs: Mapping[str, Any] = types.MappingProxyType({}),
) -> Any:
    """Return the value of a request by its content type, or the request; its inputs are decoded."""
    for request_input in inference_request.inputs:
        decode_request_input(request_input, metadata_inputs)
    content_type = _content_type(inference_request, model_settings)
    codec = mlserver_codecs.find_request_codec(content_type) if content_type else None
    if codec is None:
        return inference_request
    return _keep(inference_request, codec.decode_request(inference_request))


def encode_response_output(
    payload: Any,
    request_output: Any,
    metadata_outputs: Mapping[str, Any] = types.MappingProxyType({}),
) -> Any:
    """Return a value as an output, by its content type or its own type; None without a codec."""
    content_type = _content_type(request_output, metadata_outputs.get(request_output.name))
    codec = mlserver_codecs.find_input_codec(content_type, payload)
    return None if codec is None else codec.encode_output(request_output.name, payload)


def encode_inference_response(payload: Any, model_settings: Any) -> Any:
    """Return a value as an answer, by its type; None without a codec."""
    codec = mlserver_codecs.find_request_codec(payload=payload)
    if codec is None:
        return None
    return codec.encode_response(model_settings.name, payload, model_settings.version)


def decode_args(predict: Callable[..., Any]) -> Callable[..., Any]:
    """Return `predict` as a method of requests: its parameters are decoded by their type hints."""
    hints = {name: _needed(hint) for name, hint in typing.get_type_hints(predict).items()}
    returned = hints.pop("return", None)
    hints.pop(next(iter(inspect.signature(predict).parameters)), None)  # self
    codecs = {name: _codec_of(hint, name) for name, hint in hints.items()}
    is_tuple = typing.get_origin(returned) is tuple or isinstance(returned, tuple)
    results = typing.get_args(returned) or returned if is_tuple else (returned,)
    encoders = [_codec_of(hint, None) for hint in results if hint is not None]

    @functools.wraps(predict)
    async def answer(self: Any, request: Any) -> Any:
        payload = predict(self, **_arguments(request, codecs))
        if inspect.isawaitable(payload):
            payload = await payload
        outputs = _outputs(payload if isinstance(payload, tuple) else (payload,), encoders)
        return mlserver_types.PayloadResponse(
            model_name=self.name, model_version=self.version, outputs=outputs
        )

    return answer


def _needed(hint: Any) -> Any:
    """Return T of a hint like `T | None`, and any other hint as it is."""
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return parts[0] if is_union and len(parts) == 1 else hint


def _codec_of(hint: Any, name: str | None) -> Any:
    codec = mlserver_codecs.find_by_hint(hint)
    if codec is None:
        raise mlserver_codecs.CodecNotFound(name=name, payload_type=str(hint))
    return codec


def _is_of_requests(codec: Any) -> bool:
    return hasattr(codec, "decode_request")


def _arguments(request: Any, codecs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in a request. Inputs of other names are columns of the one frame."""
    arguments, others = {}, []
    for tensor in request.inputs:
        if tensor.name in codecs and not _is_of_requests(codecs[tensor.name]):
            arguments[tensor.name] = codecs[tensor.name].decode_input(tensor)
        else:
            others.append(tensor)
    whole = next((name for name, codec in codecs.items() if _is_of_requests(codec)), None)
    if others and whole is None:
        names = ", ".join(repr(tensor.name) for tensor in others)
        raise mlserver_types.MLServerError(
            f"Input {names} was not found. Available inputs are {', '.join(map(repr, codecs))}."
        )
    if others:
        part = mlserver_types.PayloadRequest(inputs=others)
        arguments[str(whole)] = codecs[str(whole)].decode_request(part)
    return arguments


def _outputs(payloads: Sequence[Any], encoders: Sequence[Any]) -> list[Any]:
    outputs: list[Any] = []
    for place, payload in enumerate(payloads):
        if place >= len(encoders) or not encoders[place].can_encode(payload):
            raise mlserver_types.MLServerError(
                f"Unexpected output value at position '{place}' ({type(payload)})"
            )
        if _is_of_requests(encoders[place]):
            outputs += encoders[place].encode_response("", payload).outputs
        else:
            outputs.append(encoders[place].encode_output(f"output-{place}", payload))
    return outputs
