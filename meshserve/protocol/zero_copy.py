"""Take raw tensors out of a large message as views of its bytes.

protobuf's parser would copy each tensor twice.
"""

from __future__ import annotations

from meshserve.protocol.pb import inference_pb2 as pb

BYTES_MIN = 1 << 16
"""Smaller messages are left to protobuf's parser, which is quicker for them."""

FIELDS_MAX = 256
"""Messages with more fields go to the parser: walking them here would hold up other requests."""

RAW_FIELD = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number

# Wire types and varints: https://protobuf.dev/programming-guides/encoding/
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
VARINT_BYTES_MAX, CONTINUATION_BIT = 10, 0x80


def split_raw_tensors(body: bytes) -> tuple[bytes, list[memoryview]]:
    """Return a ModelInferRequest without its raw_input_contents, and these in their order.

    A small or malformed body is returned whole, without tensors, and is left to the parser.
    """
    rest: list[memoryview] = []
    tensors: list[memoryview] = []
    view, start = memoryview(body), 0
    for _ in range(FIELDS_MAX if len(body) >= BYTES_MIN else 0):
        if start == len(body):
            return b"".join(rest), tensors
        tag, value_start, end = _read_field(body, start)
        if not start < end <= len(body):
            # The parser says what is wrong.
            break
        if tag == RAW_FIELD << 3 | LENGTH:
            tensors.append(view[value_start:end])
        else:
            rest.append(view[start:end])
        start = end
    return body, []


def _read_field(body: bytes, start: int) -> tuple[int, int, int]:
    """Return the tag of the field at `start`, and the start and end of its value.

    The end is 0 if the field is incomplete or of an unknown wire type.
    """
    tag, value_start = _read_varint(body, start)
    wire_type = tag & 7
    if wire_type in FIXED_BYTES:
        return tag, value_start, value_start + FIXED_BYTES[wire_type]
    number, end = _read_varint(body, value_start)
    if not value_start or not end or wire_type not in (VARINT, LENGTH):
        return tag, 0, 0
    return (tag, end, end + number) if wire_type == LENGTH else (tag, value_start, end)


def _read_varint(body: bytes, start: int) -> tuple[int, int]:
    """Return the number at `start` and its end, or 0 and 0 if it does not end."""
    number = 0
    for position, byte in enumerate(body[start : start + VARINT_BYTES_MAX]):
        number |= (byte & ~CONTINUATION_BIT) << (7 * position)
        if byte < CONTINUATION_BIT:
            return number, start + position + 1
    return 0, 0
