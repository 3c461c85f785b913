"""Decode and encode what differs from an earlier prediction only in its numbers, without protobuf.

A client's calls for a model are nearly always equal but for the contents of their one tensor, which
is the last field of the message. So bytes that are equal before it mean the same.
"""

from __future__ import annotations

import dataclasses
import functools

from google.protobuf.message import DecodeError

from meshserve.protocol import inference, tensors, zero_copy
from meshserve.protocol.pb import inference_pb2 as pb

FORMS_MAX = 1024
"""How many calls are remembered, one for each model: about 2 MiB."""

MISSES_MAX = 8 * FORMS_MAX
"""For how many models calls are counted that had to be parsed."""

MISSES_MIN = 8
"""How many calls for a model must have been parsed until the next one is remembered.

That costs as much as parsing, and pays only for calls that come again.
"""

LENGTH_FIELD = 2
ID_TAG, RAW_OUTPUT_TAG, RAW_INPUT_TAG = (
    bytes([message.DESCRIPTOR.fields_by_name[name].number << 3 | LENGTH_FIELD])
    for message, name in (
        (pb.ModelInferResponse, "id"),
        (pb.ModelInferResponse, "raw_output_contents"),
        (pb.ModelInferRequest, "raw_input_contents"),
    )
)


class _Form:
    """A call that came: its size, all bytes before its tensor's contents, and what they say."""

    __slots__ = ("call", "datatype", "head", "name", "shape", "size_bytes", "start")

    def __init__(self, body: bytes, head: bytes, call: inference.InferCall) -> None:
        """`call` has the one tensor whose contents are behind the head."""
        ((self.name, tensor),) = call.inputs.items()
        self.datatype, self.shape = tensor.datatype, tensor.array.shape
        self.size_bytes, self.start, self.head = len(body), len(head), head
        # Without its numbers: no client's are kept.
        self.call = dataclasses.replace(call, inputs={})


_forms: dict[bytes, _Form] = {}
_misses: dict[bytes, int] = {}


def decode_infer(body: bytes) -> inference.InferCall:
    """Return the call in a ModelInferRequest. Raises InvalidRequest for anything wrong with it."""
    # Its first field is nearly always the model's name: a tag, the length and the name. What is
    # looked up need not be a name, because all of the head is compared.
    key = body[: body[1] + 2] if len(body) > 1 else body
    form = _forms.get(key)
    if form is not None and len(body) == form.size_bytes and body.startswith(form.head):
        known = form.call
        array = tensors.from_raw(body[form.start :], form.datatype, form.shape, form.name)
        inputs = {form.name: tensors.WireTensor(form.datatype, array)}
        return inference.InferCall(
            *(known.model, known.version, known.id, inputs),
            *(known.outputs, known.is_raw, known.classes, known.source),
        )
    call = inference.decode_infer(body)
    # Large bodies have their own way without a copy, and an id is of one call alone.
    if len(body) < zero_copy.BYTES_MIN and not call.id:
        _count_miss(key, body, call)
    return call


def _count_miss(key: bytes, body: bytes, call: inference.InferCall) -> None:
    """Remember the call if enough were parsed, and if it ends with its one tensor of numbers."""
    misses = _misses.get(key, 0) + 1
    if len(_misses) >= MISSES_MAX:
        _misses.clear()
    _misses[key] = misses % MISSES_MIN
    if misses < MISSES_MIN or len(call.inputs) != 1 or not call.is_raw:
        return
    (tensor,) = call.inputs.values()
    size_bytes = tensor.array.nbytes
    head, field = body[: len(body) - size_bytes], RAW_INPUT_TAG + _varint(size_bytes)
    # Texts say themselves where they end.
    if tensor.datatype in tensors.NUMBERS and head.endswith(field):
        rest = _parse(head.removesuffix(field))
        sent = pb.ModelInferRequest.FromString(body)
        sent.ClearField("raw_input_contents")
        # Else what looks like the field may be within another one.
        if rest == sent:
            if len(_forms) >= FORMS_MAX:
                _forms.clear()
            _forms[key] = _Form(body, head, dataclasses.replace(call, source=rest))


def _parse(message: bytes) -> pb.ModelInferRequest | None:
    try:
        return pb.ModelInferRequest.FromString(message)
    except DecodeError:
        return None


def encode_infer(reply: inference.InferReply, *, is_raw: bool) -> bytes:
    """Return the same bytes as `inference.encode_infer`. Raises ModelRaised as it does."""
    if not is_raw or inference.answer_parameters(reply) is not None:
        return inference.encode_infer(reply, is_raw=is_raw)
    described: list[str | tuple[int, ...]] = []
    parts = [_names(reply.model, reply.version), b"", b""]
    for spec, array in inference.checked_outputs(reply):
        described += (spec.name, spec.datatype, array.shape)
        raw = tensors.to_raw(array)
        parts += (RAW_OUTPUT_TAG, _varint(len(raw)), raw)
    if reply.id:
        id_ = reply.id.encode()
        parts[1] = ID_TAG + _varint(len(id_)) + id_
    parts[2] = _descriptions(*described)
    return b"".join(parts)


@functools.lru_cache(FORMS_MAX)
def _names(model: str, version: str) -> bytes:
    return pb.ModelInferResponse(model_name=model, model_version=version).SerializeToString()


@functools.lru_cache(FORMS_MAX)
def _descriptions(*described: str | tuple[int, ...]) -> bytes:
    """Return the outputs' fields; each has a name, a datatype and a shape in `described`."""
    message, values = pb.ModelInferResponse(), iter(described)
    for name, datatype, shape in zip(values, values, values, strict=True):
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    return message.SerializeToString()


@functools.lru_cache(FORMS_MAX)
def _varint(number: int) -> bytes:
    """Return a length as protobuf writes it: 7 bits a byte, the lowest first."""
    last, more = number & 0x7F, number >> 7
    return bytes([last | zero_copy.CONTINUATION_BIT]) + _varint(more) if more else bytes([last])
