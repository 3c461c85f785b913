"""Decode ModelInfer requests, check them against a signature, and encode replies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.protocol import parameters, table_inputs, tensors, zero_copy
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
"""The field with a datatype's typed contents; FP16 and BF16 have none."""

RAW_PLATFORMS: Final = frozenset({"onnxruntime_onnx", "pytorch_libtorch", "python"})
"""Platforms of models that always answer with raw contents, as Triton does.

Other models answer a typed request with typed contents, as MLServer does. The clients of each
server read only its form.
"""


WireTensor = tensors.WireTensor
ModelId = model.ModelId


@dataclass(slots=True)
class InferCall:
    """A request for a prediction.

    An empty `version` means the newest one, empty `outputs` all of them. `is_raw`: the request
    carried raw bytes, so the answer does too. `classes`: how many classes are asked for in place of
    an output's values, by its name. `source` is the message, or what JSON said besides tensors, and
    `headers` came with it: `parameters.details_of` reads both for the few models that ask for it.
    `resolved` is the version that answers, once it is known.
    """

    model: str
    version: str = ""
    id: str = ""
    inputs: dict[str, WireTensor] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    is_raw: bool = True
    classes: Mapping[str, int] | None = None
    source: pb.ModelInferRequest | model_runtime.RequestDetails | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    resolved: ModelId | None = None


class InferReply(NamedTuple):
    """A prediction: an array for each output of the signature that was requested."""

    model: str
    version: str
    id: str
    outputs: Mapping[str, np.ndarray]
    signature: model.Signature


def decode_infer(body: bytes) -> InferCall:
    """Return the call in a ModelInferRequest. Raises InvalidRequest for anything wrong with it."""
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
    """Return the call in a message whose `raw_tensors` were taken out. Raises InvalidRequest."""
    sent = message.inputs
    raw: Sequence[Raw] = raw_tensors or message.raw_input_contents
    inputs = _raw_inputs(sent, raw) if raw else _typed_inputs(sent)
    if len(inputs) < len(sent):
        names = [tensor.name for tensor in sent]
        raise errors.InvalidRequest(
            f"input {next(name for name in names if names.count(name) > 1)!r} came twice"
        )
    if message.parameters:
        parameters.refuse_sequence(parameters.values_of(message.parameters))
    outputs, classes = _requested(message.outputs) if message.outputs else ((), None)
    return InferCall(
        message.model_name,
        message.model_version,
        message.id,
        inputs,
        outputs,
        bool(raw) or not sent,
        classes,
        message,
    )


def _raw_inputs(
    sent: Sequence[pb.ModelInferRequest.InferInputTensor], raw: Sequence[Raw]
) -> dict[str, WireTensor]:
    if len(raw) != len(sent):
        # Tensors in shared memory have no contents: that reason says more than their number.
        for tensor in sent:
            parameters.refuse_tensor(tensor.parameters, f"input {tensor.name!r}")
        raise errors.InvalidRequest(
            f"{len(sent)} inputs came with {len(raw)} raw_input_contents: "
            "there must be one for each"
        )
    inputs: dict[str, WireTensor] = {}
    # Slices are lists, and iterating over lists is quicker than over a message's sequences.
    for tensor, content in zip(sent[:], raw[:], strict=True):
        name, datatype = tensor.name, tensor.datatype
        # Empty contents beside raw ones say nothing, and some clients send them.
        if tensor.HasField("contents") and tensor.contents.ByteSize():
            raise errors.InvalidRequest(
                f"input {name!r} has contents beside raw_input_contents: use one of the two for all"
            )
        array = tensors.from_raw(content, datatype, tensor.shape[:], name)
        if datatype == "BYTES" and parameters.NULLS in tensor.parameters:
            parameters.restore_nulls(array, tensor.parameters)
            datatype = tensors.GAPS
        inputs[name] = WireTensor(datatype, array)
    return inputs


def _typed_inputs(sent: Sequence[pb.ModelInferRequest.InferInputTensor]) -> dict[str, WireTensor]:
    return {tensor.name: WireTensor(tensor.datatype, _typed(tensor)) for tensor in sent}


def _requested(
    outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor],
) -> tuple[tuple[str, ...], Mapping[str, int] | None]:
    names = tuple([output.name for output in outputs])
    check_distinct(names)
    classes = {}
    for output in outputs:
        if output.parameters:
            parameters.refuse_tensor(output.parameters, f"output {output.name!r}")
            if parameters.CLASSIFICATION in output.parameters:
                value = parameters.value_of(output.parameters[parameters.CLASSIFICATION])
                classes[output.name] = parameters.class_count(value, output.name)
    return names, {name: count for name, count in classes.items() if count} or None


def check_distinct(names: Sequence[str]) -> None:
    """Raise InvalidRequest if an output is requested twice."""
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise errors.InvalidRequest(f"output {repeated!r} already exists in request")


def _typed(sent: pb.ModelInferRequest.InferInputTensor) -> np.ndarray:
    """Return the tensor in typed contents, which must be in the field of its datatype alone."""
    parameters.refuse_tensor(sent.parameters, f"input {sent.name!r}")
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
            f"input {sent.name!r} of shape {list(shape)} takes {expected} elements, "
            f"{len(values)} came"
        )
    return _array(values, dtype, sent).reshape(shape)


def _array(
    values: Sequence[Any], dtype: np.dtype[np.generic], sent: pb.ModelInferRequest.InferInputTensor
) -> np.ndarray:
    if dtype.hasobject:
        array = np.empty(len(values), object)
        array[:] = values
        return array
    try:
        return np.array(values, dtype)
    except OverflowError:
        raise errors.InvalidRequest(
            f"input {sent.name!r} has values out of the range of {sent.datatype}"
        ) from None


def check_inputs(call: InferCall, signature: model.Signature) -> dict[str, np.ndarray]:
    """Return the inputs by name, with the signature's datatypes, ranks and fixed dimensions.

    Those for a signature with open inputs are returned as they came. Raises InvalidRequest, with
    the wrong input or output and what would be right.
    """
    if call.outputs:
        _check_outputs(call.outputs, signature)
    inputs: dict[str, np.ndarray] = {}
    given = call.inputs
    if signature.table is not None or signature.is_open or signature.has_open_inputs:
        return _loose_inputs(given, signature)
    for spec in signature.inputs:
        tensor = given.get(spec.name)
        if tensor is None:
            _check_optional(spec, signature, given)
            continue
        array = tensor.array
        if tensor.datatype != spec.datatype:
            raise tensors.refusal(spec.name, spec.datatype, tensor)
        shape = array.shape
        # A quick check first: fixed shapes are equal, and equal tuples are compared in C.
        if shape != spec.shape:
            _check_shape(spec, shape)
        inputs[spec.name] = array
    if len(given) > len(inputs):
        raise _unknown(
            "input",
            [name for name in given if name not in inputs],
            [spec.name for spec in signature.inputs],
        )
    return inputs


def _loose_inputs(
    given: Mapping[str, WireTensor], signature: model.Signature
) -> dict[str, np.ndarray]:
    if signature.table is not None:
        return table_inputs.to_inputs(given, signature, signature.table)
    if signature.has_open_inputs:
        for name, tensor in given.items():
            if tensor.datatype.startswith(tensors.MISFIT):
                raise tensors.refusal(name, "BYTES", tensor)
    return {name: table_inputs.as_it_came(tensor) for name, tensor in given.items()}


def _check_shape(spec: model.TensorSpec, shape: tuple[int, ...]) -> None:
    expected = spec.shape
    if len(shape) != len(expected):
        raise errors.InvalidRequest(
            f"input {spec.name!r} must have {len(expected)} dimensions, {list(expected)} "
            f"(-1 is any size); {list(shape)} came"
        )
    for fixed, size in zip(expected, shape, strict=True):
        if fixed not in (size, -1):
            raise errors.InvalidRequest(
                f"input {spec.name!r} must have the shape {list(expected)} "
                f"(-1 is any size); {list(shape)} came"
            )


def _check_optional(
    spec: model.TensorSpec, signature: model.Signature, given: Iterable[str]
) -> None:
    if spec.name not in signature.optional:
        raise _missing(spec, given)


def _missing(spec: model.TensorSpec, given: Iterable[str]) -> errors.InvalidRequest:
    near = get_close_matches(spec.name, list(given), 1)
    hint = f"; {near[0]!r} came, is it meant?" if near else ""
    return errors.InvalidRequest(
        f"input {spec.name!r} ({spec.datatype} {list(spec.shape)}) is missing{hint}"
    )


def _unknown(what: str, names: Sequence[str], known: Sequence[str]) -> errors.InvalidRequest:
    near = get_close_matches(names[0], known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    # Begins with the words that clients and tests of Triton look for.
    return errors.InvalidRequest(
        f"unexpected inference {what} {names[0]!r}: "
        f"the model has no {what} {names[0]!r}; {hint}it has: {', '.join(known)}"
    )


def _check_outputs(outputs: tuple[str, ...], signature: model.Signature) -> None:
    if signature.is_open or signature.has_open_outputs:
        return
    known = [spec.name for spec in signature.outputs]
    unknown = [name for name in outputs if name not in known]
    if unknown and known:
        raise _unknown("output", unknown, known)


def row_count(inputs: Mapping[str, np.ndarray], signature: model.Signature) -> int:
    """Return the first size that all inputs share, or 0 if they share none or have no rows.

    Without a batch dimension in the signature it is 1.
    """
    if not signature.has_batch_dimension:
        return 1
    rows = -1
    for array in inputs.values():
        # Only open inputs may be numbers, which have no rows.
        size = len(array) if array.ndim else 0
        if size != rows:
            if rows >= 0:
                return 0
            rows = size
    return max(rows, 0)


def encode_infer(reply: InferReply, *, is_raw: bool) -> bytes:
    """Return a serialised ModelInferResponse; `is_raw` as in the call.

    Raises ModelRaised for outputs whose datatypes are not the signature's.
    """
    return reply_message(reply, is_raw=is_raw).SerializeToString()


def reply_message(reply: InferReply, *, is_raw: bool) -> pb.ModelInferResponse:
    """Return the reply as a message: all raw as well if one output has no typed contents.

    Raises ModelRaised for outputs whose datatypes are not the signature's.
    """
    message = pb.ModelInferResponse(
        model_name=reply.model, model_version=reply.version, id=reply.id
    )
    add, add_raw = message.outputs.add, message.raw_output_contents.append
    outputs = checked_outputs(reply)
    said = answer_parameters(reply)
    is_typed = not is_raw and all(spec.datatype in CONTENTS for spec, _ in outputs)
    for spec, array in outputs:
        output = add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        if is_typed:
            getattr(output.contents, CONTENTS[spec.datatype]).extend(_elements(array))
        else:
            add_raw(tensors.to_raw(array))
    if said is not None:
        _add_parameters(message, said)
    return message


def answer_parameters(reply: InferReply) -> model_runtime.AnswerTensors | None:
    """Return the outputs if the model gave parameters with them, else None."""
    outputs = reply.outputs
    return outputs if type(outputs) is model_runtime.AnswerTensors else None


def _add_parameters(message: pb.ModelInferResponse, said: model_runtime.AnswerTensors) -> None:
    for name, value in said.parameters.items():
        message.parameters[name].CopyFrom(parameters.as_message(value))
    for output in message.outputs:
        for name, value in said.output_parameters.get(output.name, {}).items():
            output.parameters[name].CopyFrom(parameters.as_message(value))


def checked_outputs(reply: InferReply) -> list[tuple[model.TensorSpec, np.ndarray]]:
    """Return the outputs in the signature's order.

    Raises ModelRaised for an array whose dtype is not the datatype's.
    """
    arrays = reply.outputs
    outputs = [(spec, arrays[spec.name]) for spec in reply.signature.outputs if spec.name in arrays]
    for spec, array in outputs:
        dtype = tensors.DTYPES[spec.datatype]
        # Identity first: comparing two dtypes is slow.
        if (
            array.dtype is not dtype
            and array.dtype != dtype
            and not (dtype.hasobject and array.dtype.kind in "SU")
        ):
            raise errors.ModelRaised(
                f"output {spec.name!r} is declared as {spec.datatype}, the model gave {array.dtype}"
            )
    return outputs


def _elements(array: np.ndarray) -> list[Any]:
    if array.dtype.kind in "OSU":
        return [tensors.as_bytes(element) for element in array.flat]
    return list(array.ravel().tolist())
