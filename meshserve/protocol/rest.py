"""V2 REST inference: JSON with Triton's binary tensors, to the same calls and replies as gRPC."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.protocol import (
    error_responses,
    inference,
    json_tensors,
    parameters,
    request_parts,
    tensors,
)

LENGTH = b"inference-header-content-length"
# More digits are no size of a body, and `int` is slow with very many.
LENGTH_DIGITS_MAX = 12


@dataclass(slots=True)
class RestCall:
    """A call, and the outputs to be sent in binary form.

    `binary` says so by name; `is_binary` holds for all other outputs.
    """

    call: inference.InferCall
    is_binary: bool = False
    binary: dict[str, bool] = field(default_factory=dict)


def decode_infer(body: bytes, headers: Iterable[error_responses.Header]) -> RestCall:
    """Return the call in a body, without its model, which the URL names. Raises InvalidRequest."""
    size = json_bytes(headers, len(body))
    document = _document(body[:size])
    reader = _BinaryReader(body[size:])
    inputs: dict[str, inference.WireTensor] = {}
    sent = _objects(document, "inputs")
    for entry in sent:
        name = _text(entry, "name", "input")
        if name in inputs:
            raise errors.InvalidRequest(f"input {name!r} came twice")
        inputs[name] = _tensor(name, entry, reader)
    reader.check_empty()
    entries = _objects(document, "outputs")
    requested = dict(_requested_output(entry) for entry in entries)
    if len(requested) < len(entries):
        inference.check_distinct([entry["name"] for entry in entries])
    said = _parameters(document)
    if said:
        parameters.refuse_sequence(said)
    call = inference.InferCall(
        "",
        "",
        _text(document, "id", "request", ""),
        inputs,
        tuple(requested),
        classes=_classes(entries),
    )
    call.source = model_runtime.RequestDetails(
        id=call.id,
        parameters=said,
        outputs=call.outputs,
        input_parameters=_tensor_parameters(sent),
        output_parameters=_tensor_parameters(entries),
        nesting=_nesting(sent),
        is_json=True,
    )
    is_binary = said.get("binary_data_output") is True
    binary = {name: value for name, value in requested.items() if isinstance(value, bool)}
    return RestCall(call, is_binary, binary)


def _document(text: bytes) -> dict[str, Any]:
    document = json_tensors.parse_object(text)
    if len(text) >= request_parts.BIG_BYTES_MIN:
        request_parts.check_v2(document)
    return document


def json_bytes(headers: Iterable[error_responses.Header], size_bytes: int) -> int:
    """Return the size of the JSON that begins a body of this size. Raises InvalidRequest."""
    header = next((value for name, value in headers if name == LENGTH), None)
    return size_bytes if header is None else _header_size(header, size_bytes)


def _tensor_parameters(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: said for entry in entries if (said := _parameters(entry))}


def _nesting(entries: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Return the sizes of the lists in which values came, by input, if they are not one list."""
    shapes = {}
    for entry in entries:
        level, sizes = entry.get("data"), list[int]()
        while isinstance(level, list):
            sizes.append(len(level))
            level = level[0] if level else None
        if len(sizes) > 1 or (not sizes and level is not None):
            shapes[entry["name"]] = tuple(sizes)
    return shapes


def _requested_output(entry: Mapping[str, Any]) -> tuple[str, Any]:
    """Return a requested output's name and its `binary_data`, of any type."""
    name, said = _text(entry, "name", "output"), _parameters(entry)
    parameters.refuse_tensor(said, f"output {name!r}")
    return name, said.get("binary_data")


def _classes(entries: Iterable[Mapping[str, Any]]) -> Mapping[str, int] | None:
    """Return the number of classes by output that asks for classes."""
    classes = {
        entry["name"]: parameters.class_count(said[parameters.CLASSIFICATION], entry["name"])
        for entry in entries
        if parameters.CLASSIFICATION in (said := _parameters(entry))
    }
    return {name: count for name, count in classes.items() if count} or None


def is_raw_binary(headers: Iterable[error_responses.Header]) -> bool:
    """Return whether a body is the only input's bytes: the JSON's length is given as 0."""
    # One zero or more; a header without a value says nothing.
    return any(name == LENGTH and value.strip(b"0") == b"" != value for name, value in headers)


def decode_raw_binary(body: bytes, signature: model.Signature) -> RestCall:
    """Return the call of a body that is the bytes of the model's only input.

    As Triton has it, down to the words of errors (`docs/protocol/extension_binary_data.md`): one
    row, one dimension of any size at most. BYTES must have the shape [1], and are the whole body.
    Outputs are binary. Raises InvalidRequest.
    """
    if len(signature.inputs) != 1:
        raise errors.InvalidRequest(
            "Raw request must only have 1 input (found 1) to be deduced but got "
            f"{len(signature.inputs)} inputs in the model"
        )
    (spec,) = signature.inputs
    if signature.has_open_inputs:
        raise errors.InvalidRequest(
            "the model does not declare its inputs, whose datatypes a raw request does not say"
        )
    shape = list(spec.shape)
    if signature.has_batch_dimension:
        shape[0] = 1
    if spec.datatype == "BYTES":
        array = np.array([body], object)
        # Of any size, the body could as well be elements that each begin with their length.
        if any(size != 1 for size in shape):
            raise errors.InvalidRequest(
                f"For BYTE datatype raw input {spec.name!r}, the model must have input shape [1], "
                f"not {list(spec.shape)}"
            )
        tensor = inference.WireTensor("BYTES", array.reshape(shape))
    else:
        sizes = _deduced(spec, shape, len(body))
        tensor = inference.WireTensor(
            spec.datatype, tensors.from_raw(body, spec.datatype, sizes, spec.name)
        )
    return RestCall(inference.InferCall("", inputs={spec.name: tensor}), is_binary=True)


def _deduced(spec: model.TensorSpec, shape: list[int], size_bytes: int) -> list[int]:
    """Return the shape, with the size of its free dimension if it has one."""
    if shape.count(-1) > 1:
        raise errors.InvalidRequest(
            f"The shape of the raw input {spec.name!r} can not be deduced because there are more "
            f"than one variable-sized dimension: {list(spec.shape)}"
        )
    fixed_bytes = tensors.dtype(spec.datatype).itemsize * math.prod(
        size for size in shape if size >= 0
    )
    # Bytes that are left over are refused as those of any other tensor.
    return [size_bytes // max(1, fixed_bytes) if size < 0 else size for size in shape]


def _header_size(header: bytes, total: int) -> int:
    if not header.isdigit() or len(header) > LENGTH_DIGITS_MAX or int(header) > total:
        shown = header[:LENGTH_DIGITS_MAX].decode("latin-1")
        raise errors.InvalidRequest(
            f"Inference-Header-Content-Length {shown!r} is not a size within the body "
            f"of {total} bytes"
        )
    return int(header)


class _BinaryReader:
    """Reads the tensors behind the JSON, in the order of the inputs."""

    def __init__(self, rest: bytes) -> None:
        self._rest = rest
        self._position = 0

    def take(self, size: object, name: str) -> bytes:
        left = len(self._rest) - self._position
        # JSON's true would be the size 1.
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= left:
            raise errors.InvalidRequest(
                f"input {name!r} claims binary_data_size {size!r}, "
                f"{left} bytes are left in the body"
            )
        self._position += size
        return self._rest[self._position - size : self._position]

    def check_empty(self) -> None:
        if self._position != len(self._rest):
            raise errors.InvalidRequest(
                f"the body has {len(self._rest) - self._position} bytes more than its inputs take"
            )


def _tensor(name: str, entry: Mapping[str, Any], reader: _BinaryReader) -> inference.WireTensor:
    datatype = _text(entry, "datatype", f"input {name!r}")
    shape = _shape(entry, name)
    said = _parameters(entry)
    parameters.refuse_tensor(said, f"input {name!r}")
    size = said.get("binary_data_size")
    if size is not None:
        if entry.get("data") is not None:
            raise errors.InvalidRequest(
                f"input {name!r} has data beside binary_data_size: use one of the two"
            )
        return inference.WireTensor(
            datatype, tensors.from_raw(reader.take(size, name), datatype, shape, name)
        )
    if entry.get("data") is None:
        raise errors.InvalidRequest(f"input {name!r} has neither data nor binary_data_size")
    array = json_tensors.to_flat_array(entry["data"], datatype, name)
    expected = tensors.element_count(shape, name)
    if array.size != expected:
        misfit = f"of shape {list(shape)} takes {expected} elements, {array.size} came"
        if datatype != "BYTES":
            raise errors.InvalidRequest(f"input {name!r} {misfit}")
        # MLServer's documentation gives one text the shape of its length, and its classes read it.
        return inference.WireTensor(f"{tensors.MISFIT}{misfit}", array)
    if datatype == "BYTES" and None in array.tolist():
        return inference.WireTensor(tensors.GAPS, array.reshape(shape))
    # In their order whatever their nesting, as Triton, MLServer and KServe take them.
    return inference.WireTensor(datatype, array.reshape(shape))


def _shape(entry: Mapping[str, Any], name: str) -> tuple[int, ...]:
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(
        isinstance(size, int) and not isinstance(size, bool) for size in shape
    ):
        raise errors.InvalidRequest(f"input {name!r} needs a shape, a list of whole numbers")
    return tuple(shape)


def _objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = _given(document, key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise errors.InvalidRequest(f"{key} must be a list of objects")
    return entries


def _parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    said = _given(entry, "parameters", {})
    if not isinstance(said, dict):
        raise errors.InvalidRequest("parameters must be an object")
    return said


def _text(entry: Mapping[str, Any], key: str, owner: str, default: str | None = None) -> str:
    text = _given(entry, key, default)
    if not isinstance(text, str):
        raise errors.InvalidRequest(f"{owner}: {key} must be a string")
    return text


def _given(entry: Mapping[str, Any], key: str, default: object) -> Any:
    """Return the key's value. null means not given, as MLServer's client writes it."""
    value = entry.get(key)
    return default if value is None else value


def encode_infer(
    reply: inference.InferReply, rest_call: RestCall
) -> tuple[tuple[error_responses.Header, ...], bytes]:
    """Return headers and body of the answer, with the binary outputs behind the JSON.

    Raises InvalidRequest for outputs that JSON can't carry, ModelRaised for wrong datatypes.
    """
    entries, parts = [], list[bytes]()
    said = inference.answer_parameters(reply)
    for spec, array in inference.checked_outputs(reply):
        entry: dict[str, Any] = {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": list(array.shape),
        }
        if rest_call.binary.get(spec.name, rest_call.is_binary):
            parts.append(tensors.to_raw(array))
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = json_tensors.flat_values(array, spec.datatype, spec.name)
            if said is not None and said.output_parameters.get(spec.name):
                entry["parameters"] = parameters.as_json(said.output_parameters[spec.name])
        entries.append(entry)
    document: dict[str, Any] = {
        "model_name": reply.model,
        "model_version": reply.version,
        "outputs": entries,
    }
    if reply.id:
        document["id"] = reply.id
    if said is not None and said.parameters:
        document["parameters"] = parameters.as_json(said.parameters)
    # Clients read null as NaN, also those whose parsers refuse the words. Infinities have no null.
    text = json_tensors.dump(document, nan=b"null")
    if not parts:
        return (error_responses.JSON_TYPE,), text
    headers = ((b"content-type", b"application/octet-stream"), (LENGTH, str(len(text)).encode()))
    return headers, b"".join((text, *parts))
