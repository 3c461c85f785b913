"""ModelInfer on the wire ↔ a call and its reply, and the check of a call against a model's signature."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import tensors, zero_copy
from meshserve.protocol.pb import inference_pb2 as pb

Raw = bytes | memoryview

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Which field carries a datatype's typed contents; FP16 and BF16 have none."""

REFUSED: Final = {
    "shared_memory_region": "shared memory is not offered: send tensors in the message",
    "classification": "classification is not offered: ask for the output itself",
}
"""Parameters of tensors that would change the answer's meaning."""


class WireTensor(NamedTuple):
    """One named input as it came."""

    datatype: str
    array: np.ndarray


@dataclass(slots=True)
class InferCall:
    """A prediction that somebody asks for. `is_raw`: the answer shall carry raw bytes, as the request did. Empty `outputs` ask for all."""

    model: str
    version: str = ""
    id: str = ""
    inputs: dict[str, WireTensor] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    is_raw: bool = True


class InferReply(NamedTuple):
    """A prediction. `outputs` holds an array for each output that was asked for."""

    model: str
    version: str
    id: str
    outputs: Mapping[str, np.ndarray]
    signature: model.Signature


def decode_infer(body: bytes) -> InferCall:
    """The call in a ModelInferRequest. Raises InvalidRequest for whatever is wrong with it."""
    rest, raw = (
        zero_copy.split_raw_tensors(body) if len(body) >= zero_copy.BYTES_MIN else (body, ())
    )
    try:
        message = pb.ModelInferRequest.FromString(rest)
    except DecodeError:
        raise errors.InvalidRequest("the body is not a ModelInferRequest") from None
    return call_from_message(message, raw)


def call_from_message(
    message: pb.ModelInferRequest, raw_tensors: Sequence[memoryview] = ()
) -> InferCall:
    """The call in a message, from which raw tensors may have been lifted before. Raises InvalidRequest."""
    sent = message.inputs
    raw: Sequence[Raw] = raw_tensors or message.raw_input_contents
    inputs = _raw_inputs(sent, raw) if raw else _typed_inputs(sent)
    if len(inputs) < len(sent):
        names = [each.name for each in sent]
        raise errors.InvalidRequest(
            f"input {next(name for name in names if names.count(name) > 1)!r} came twice"
        )
    outputs = _asked(message.outputs) if message.outputs else ()
    return InferCall(
        message.model_name,
        message.model_version,
        message.id,
        inputs,
        outputs,
        bool(raw) or not sent,
    )


def _raw_inputs(
    sent: Sequence[pb.ModelInferRequest.InferInputTensor], raw: Sequence[Raw]
) -> dict[str, WireTensor]:
    if len(raw) != len(sent):
        raise errors.InvalidRequest(
            f"{len(sent)} inputs came with {len(raw)} raw_input_contents: there must be one for each"
        )
    inputs: dict[str, WireTensor] = {}
    # Slices are lists: quicker to go through than the messages' own sequences.
    for each, content in zip(sent[:], raw[:], strict=True):
        name, datatype = each.name, each.datatype
        if each.HasField("contents") and each.contents.ByteSize():
            raise errors.InvalidRequest(
                f"input {name!r} has contents beside raw_input_contents: use one of the two for all"
            )
        inputs[name] = WireTensor(
            datatype, tensors.from_raw(content, datatype, each.shape[:], name)
        )
    return inputs


def _typed_inputs(sent: Sequence[pb.ModelInferRequest.InferInputTensor]) -> dict[str, WireTensor]:
    return {each.name: WireTensor(each.datatype, _typed(each)) for each in sent}


def _asked(outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor]) -> tuple[str, ...]:
    for each in outputs:
        if each.parameters:
            refuse_parameters(each.parameters, f"output {each.name!r}")
    return tuple([each.name for each in outputs])


def refuse_parameters(parameters: Container[str], of: str) -> None:
    """Raise InvalidRequest if a tensor's parameters ask for what is not offered; others are of no concern."""
    for name, reason in REFUSED.items():
        if name in parameters:
            raise errors.InvalidRequest(f"{of}: {reason}")


def _typed(sent: pb.ModelInferRequest.InferInputTensor) -> np.ndarray:
    """The tensor in typed contents, which must be those of its datatype and no others."""
    refuse_parameters(sent.parameters, f"input {sent.name!r}")
    dtype = tensors.dtype(sent.datatype)
    field_name = CONTENTS.get(sent.datatype)
    if field_name is None:
        raise errors.InvalidRequest(
            f"input {sent.name!r}: {sent.datatype} can only be sent in raw_input_contents"
        )
    contents = sent.contents
    values = getattr(contents, field_name)[:]
    others = [
        descriptor.name for descriptor, _ in contents.ListFields() if descriptor.name != field_name
    ]
    if others:
        raise errors.InvalidRequest(
            f"input {sent.name!r} of {sent.datatype} belongs into {field_name}, not {others[0]}"
        )
    shape = tuple(sent.shape)
    expected = tensors.element_count(shape, sent.name)
    if len(values) != expected:
        raise errors.InvalidRequest(
            f"input {sent.name!r} of shape {list(shape)} takes {expected} elements, {len(values)} came"
        )
    return _array(values, dtype, sent).reshape(shape)


def _array(
    values: Sequence[Any], dtype: np.dtype[np.generic], sent: pb.ModelInferRequest.InferInputTensor
) -> np.ndarray:
    if dtype.hasobject:
        found = np.empty(len(values), object)
        found[:] = values
        return found
    try:
        return np.array(values, dtype)
    except OverflowError:
        raise errors.InvalidRequest(
            f"input {sent.name!r} has values out of the range of {sent.datatype}"
        ) from None


def check_inputs(call: InferCall, signature: model.Signature) -> dict[str, np.ndarray]:
    """The call's inputs by name, fit for the model. Raises InvalidRequest that says which input is wrong, how, and what would be right."""
    inputs: dict[str, np.ndarray] = {}
    given = call.inputs
    rows = -1
    for spec in signature.inputs:
        tensor = given.get(spec.name)
        if tensor is None:
            raise _missing(spec, given)
        array = tensor.array
        if tensor.datatype != spec.datatype:
            raise errors.InvalidRequest(
                f"input {spec.name!r} must be {spec.datatype}, {tensor.datatype} came"
            )
        shape = array.shape
        if shape != spec.shape:
            _check_shape(spec, shape)
        if signature.has_batch_dimension:
            rows = _check_rows(spec, shape[0], rows)
        inputs[spec.name] = array
    if len(given) > len(inputs):
        raise _unknown(
            "input",
            [name for name in given if name not in inputs],
            [spec.name for spec in signature.inputs],
        )
    if call.outputs:
        _check_outputs(call.outputs, signature)
    return inputs


def _check_shape(spec: model.TensorSpec, shape: tuple[int, ...]) -> None:
    wanted = spec.shape
    if len(shape) != len(wanted):
        raise errors.InvalidRequest(
            f"input {spec.name!r} must have {len(wanted)} dimensions, {list(wanted)} (-1 is any size); {list(shape)} came"
        )
    for fixed, size in zip(wanted, shape, strict=True):
        if fixed not in (size, -1):
            raise errors.InvalidRequest(
                f"input {spec.name!r} must have the shape {list(wanted)} (-1 is any size); {list(shape)} came"
            )
    if shape and shape[0] == 0 and wanted[0] == -1:
        raise errors.InvalidRequest(
            f"input {spec.name!r} is an empty batch: its shape is {list(shape)}"
        )


def _check_rows(spec: model.TensorSpec, size: int, rows: int) -> int:
    if rows not in (-1, size):
        raise errors.InvalidRequest(
            f"input {spec.name!r} has {size} rows, the inputs before it have {rows}"
        )
    return size


def _missing(spec: model.TensorSpec, given: Iterable[str]) -> errors.InvalidRequest:
    near = get_close_matches(spec.name, list(given), 1)
    hint = f"; {near[0]!r} came, is it meant?" if near else ""
    return errors.InvalidRequest(
        f"input {spec.name!r} ({spec.datatype} {list(spec.shape)}) is missing{hint}"
    )


def _unknown(what: str, names: Sequence[str], known: Sequence[str]) -> errors.InvalidRequest:
    near = get_close_matches(names[0], known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return errors.InvalidRequest(
        f"the model has no {what} {names[0]!r}; {hint}it has: {', '.join(known)}"
    )


def _check_outputs(outputs: tuple[str, ...], signature: model.Signature) -> None:
    known = [spec.name for spec in signature.outputs]
    unknown = [name for name in outputs if name not in known]
    if unknown:
        raise _unknown("output", unknown, known)


def encode_infer(reply: InferReply, *, is_raw: bool) -> bytes:
    """A ModelInferResponse; `is_raw` as in the call. Raises ModelRaised for outputs that are not what the signature says."""
    return reply_message(reply, is_raw=is_raw).SerializeToString()


def reply_message(reply: InferReply, *, is_raw: bool) -> pb.ModelInferResponse:
    """The reply as a message: all raw, too, where one output can't be typed."""
    message = pb.ModelInferResponse(
        model_name=reply.model, model_version=reply.version, id=reply.id
    )
    add, add_raw = message.outputs.add, message.raw_output_contents.append
    found = checked_outputs(reply)
    is_typed = not is_raw and all(spec.datatype in CONTENTS for spec, _ in found)
    for spec, array in found:
        output = add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        if is_typed:
            getattr(output.contents, CONTENTS[spec.datatype]).extend(_elements(array))
        else:
            add_raw(tensors.to_raw(array))
    return message


def checked_outputs(reply: InferReply) -> list[tuple[model.TensorSpec, np.ndarray]]:
    """The outputs that there are, in the signature's order. Raises ModelRaised for an array of another datatype."""
    outputs = reply.outputs
    found = [(spec, outputs[spec.name]) for spec in reply.signature.outputs if spec.name in outputs]
    for spec, array in found:
        wanted = tensors.DTYPES[spec.datatype]
        if (
            array.dtype is not wanted
            and array.dtype != wanted
            and not (wanted.hasobject and array.dtype.kind in "SU")
        ):
            raise errors.ModelRaised(
                f"output {spec.name!r} is declared as {spec.datatype}, the model gave {array.dtype}"
            )
    return found


def _elements(array: np.ndarray) -> list[Any]:
    if array.dtype.kind in "OSU":
        return [tensors.as_bytes(element) for element in array.flat]
    return list(array.ravel().tolist())
