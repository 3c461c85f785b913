"""Takes the raw tensors out of a big message as views of its bytes. A parser would copy each of them twice."""

from __future__ import annotations

from meshserve.protocol.pb import inference_pb2 as pb

BYTES_MIN = 1 << 16
"""Below this a parser is quicker."""

FIELDS_MAX = 256
"""Who sends more fields is left to the parser: walking them here would hold up everybody else."""

RAW = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
VARINT_BYTES_MAX, LAST = 10, 0x80


def split_raw_tensors(body: bytes) -> tuple[bytes, list[memoryview]]:
    """A ModelInferRequest without its raw_input_contents, and these in their order; all of it and none where a parser must judge it.

    The wire format: https://protobuf.dev/programming-guides/encoding/
    """
    kept: list[memoryview] = []
    found: list[memoryview] = []
    view, at = memoryview(body), 0
    for _ in range(FIELDS_MAX if len(body) >= BYTES_MIN else 0):
        if at == len(body):
            return b"".join(kept), found
        tag, begin, end = _field(body, at)
        if not at < end <= len(body):
            break
        if tag == RAW << 3 | LENGTH:
            found.append(view[begin:end])
        else:
            kept.append(view[at:end])
        at = end
    return body, []


def _field(body: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the field that begins here, and where its value begins and ends; nowhere, 0, for what this does not know."""
    tag, begin = _varint(body, at)
    kind = tag & 7
    if kind in FIXED_BYTES:
        return tag, begin, begin + FIXED_BYTES[kind]
    number, end = _varint(body, begin)
    if not begin or not end or kind not in (VARINT, LENGTH):
        return tag, 0, 0
    return (tag, end, end + number) if kind == LENGTH else (tag, begin, end)


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """The number that begins here, and where it ends: nowhere, 0, where it does not."""
    number = 0
    for place, byte in enumerate(body[at : at + VARINT_BYTES_MAX]):
        number |= (byte & ~LAST) << (7 * place)
        if byte < LAST:
            return number, at + place + 1
    return 0, 0
