"""The parameters of requests, tensors and answers, and what else a request says besides tensors."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

import numpy as np
import orjson

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.protocol.pb import inference_pb2 as pb

REFUSED: Final = {
    "shared_memory_region": "shared memory is not offered: send tensors in the message",
}
"""Parameters of tensors that would change the meaning of the answer, and why each is refused."""

SEQUENCE: Final = ("sequence_id", "sequence_start", "sequence_end")
"""Parameters of a request that make it part of a sequence, which is not offered."""

CLASSIFICATION: Final = "classification"
"""The parameter of an output that asks for its best classes, see `protocol/classification.py`."""

NULLS: Final = "meshserve_nulls"
"""The parameter of a BYTES input in raw contents that says which texts are missing: `0,3`."""

SECRET_PARTS: Final = (
    *("auth", "cookie", "cert", "credential", "jwt", "key", "password", "passwd"),
    *("secret", "signature", "token", "x-amz-", "x-csrf", "x-envoy-", "x-mesh-"),
)
"""Parts of the names of headers that may hold a secret, or that speak of the mesh's inside.

A model's code is trusted with its requests, but not with its callers' keys: it may log headers.
"""

INT64_MAX: Final = (1 << 63) - 1


def value_of(parameter: pb.InferParameter) -> Any:
    """Return the value of a parameter, None if it has none."""
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def values_of(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    """Return the values of a message's parameters by name."""
    return {name: value_of(parameter) for name, parameter in parameters.items()}


def as_message(value: object) -> pb.InferParameter:
    """Return a value as a parameter; what no field can hold becomes JSON's text."""
    match value:
        # First, because a bool is an int in Python.
        case bool():
            return pb.InferParameter(bool_param=value)
        case int() if -INT64_MAX - 1 <= value <= INT64_MAX:
            return pb.InferParameter(int64_param=value)
        case int() if 0 <= value <= 2 * INT64_MAX + 1:
            return pb.InferParameter(uint64_param=value)
        case float():
            return pb.InferParameter(double_param=value)
        case str():
            return pb.InferParameter(string_param=value)
    return pb.InferParameter(string_param=json.dumps(value, default=str))


def as_json(values: model_runtime.Parameters) -> orjson.Fragment:
    """Return parameters for a JSON document; what JSON can't hold becomes text."""
    text = json.dumps(dict(values), default=str)
    # Python writes NaN and infinities as bare words, which no other parser takes.
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=str))
    return orjson.Fragment(text)


def class_count(value: object, output: str) -> int:
    """Return the number of classes that a parameter asks for, 0 for the values themselves.

    Raises InvalidRequest if it is no whole number.
    """
    # Python's `True` would be one class.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise errors.InvalidRequest(
            f"output {output!r}: {CLASSIFICATION} must be a number of classes, not {value!r}"
        )
    return value


def refuse_sequence(parameters: Mapping[str, object]) -> None:
    """Raise InvalidRequest if a request's parameters make it part of a sequence."""
    for name in SEQUENCE:
        # Clients send 0 and false with requests outside of any sequence.
        if parameters.get(name):
            raise errors.InvalidRequest(
                f"{name}: sequences are not offered: each request is on its own"
            )


def mark_nulls(array: np.ndarray, sent: pb.ModelInferRequest.InferInputTensor) -> np.ndarray:
    """Return texts of any shape with empty ones for None, whose places the tensor's parameter says.

    Raw contents have no null, as JSON has it.
    """
    if not array.dtype.hasobject:
        return array
    flat = array.ravel()
    places = [place for place, item in enumerate(flat.tolist()) if item is None]
    if not places:
        return array
    sent.parameters[NULLS].string_param = ",".join(map(str, places))
    filled = flat.copy()
    filled[places] = b""
    return filled.reshape(array.shape)


def restore_nulls(array: np.ndarray, parameters: Mapping[str, pb.InferParameter]) -> None:
    """Put None into texts of any shape where their tensor's parameter says so.

    Raises InvalidRequest for places that it does not have.
    """
    text = parameters[NULLS].string_param
    # Without signs: a negative place would count from the end.
    places = [int(place) if place.isdecimal() else array.size for place in text.split(",")]
    if max(places) >= array.size:
        raise errors.InvalidRequest(f"parameter {NULLS} must be places in the tensor, as 0,3")
    array.reshape(array.size)[places] = None


def refuse_tensor(parameters: Container[str], tensor: str) -> None:
    """Raise InvalidRequest if a tensor's parameters ask for one of REFUSED. Others are ignored."""
    for name, reason in REFUSED.items():
        if name in parameters:
            raise errors.InvalidRequest(f"{tensor}: {reason}")


def details_of(
    source: pb.ModelInferRequest | model_runtime.RequestDetails | None,
    headers: Iterable[tuple[bytes, bytes]],
) -> model_runtime.RequestDetails:
    """Return what a request says besides its tensors: a gRPC message, or what JSON said so far.

    Secrets among the headers are left out.
    """
    if isinstance(source, pb.ModelInferRequest):
        details = model_runtime.RequestDetails(
            id=source.id,
            parameters=values_of(source.parameters),
            outputs=tuple(output.name for output in source.outputs),
            input_parameters=_by_tensor(source.inputs),
            output_parameters=_by_tensor(source.outputs),
        )
    else:
        details = source or model_runtime.RequestDetails(is_json=True)
    details.headers = harmless_headers(headers)
    return details


def _by_tensor(tensors: Iterable[Any]) -> dict[str, model_runtime.Parameters]:
    return {tensor.name: values_of(tensor.parameters) for tensor in tensors if tensor.parameters}


def harmless_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers that hold no secrets, by names in small letters.

    Of several with one name the values are joined by commas, as RFC 9110 (5.2) has it.
    """
    kept: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        if any(part in name for part in SECRET_PARTS):
            continue
        value = raw_value.decode("latin-1")
        kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept
