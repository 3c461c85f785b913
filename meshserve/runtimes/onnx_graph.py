"""Reads the graph of an ONNX file, without its weights and without the `onnx` package.

The format is Protobuf: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Only the fields that
say how operators are connected are read; the bytes of weights are stepped over.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

Buffer: TypeAlias = memoryview
FieldValue: TypeAlias = "int | memoryview"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Protobuf's wire types."""

_CONTINUES = 0x80
"""The bit of a byte of a varint that says that another byte follows."""

# Field numbers in onnx.proto; 1 is the name wherever a message has one.
_GRAPH, _OPSET, _FUNCTIONS = 7, 8, 25
_GRAPH_NODE, _GRAPH_WEIGHT, _GRAPH_OUTPUT, _GRAPH_SPARSE_WEIGHT = 1, 5, 12, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NUMBER, _ATTRIBUTE_TEXT, _ATTRIBUTE_NUMBERS = 3, 4, 8
_OPSET_VERSION, _WEIGHT_NAME = 2, 8


@dataclass(slots=True)
class Node:
    """One operator. `attributes` have numbers, texts, lists of numbers, or None for all others."""

    kind: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Graph:
    """The graph of a model.

    `weights` are the numbers of elements of its initializers; `opset` is that of the default
    domain.
    """

    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    opset: int = 1


class Unreadable(Exception):
    """The bytes are not those of an ONNX model with a plain graph."""


def read(content: bytes | Buffer) -> Graph:
    """Return the graph of the model. Raises Unreadable."""
    graph = Graph()
    try:
        # Slices of a memoryview copy nothing, and most of a file are weights.
        for number, value in _fields(memoryview(content)):
            if number == _GRAPH:
                _read_graph(graph, _buffer(value))
            elif number == _OPSET:
                _read_opset(graph, _buffer(value))
            elif number == _FUNCTIONS:
                # The walk would not see the operators inside of a function.
                raise Unreadable("the model has functions of its own")
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise Unreadable(f"the file is broken: {error}") from None
    return graph


def with_outputs(content: bytes, names: list[str]) -> bytes:
    """Return the model with these tensors as outputs too.

    Protobuf merges a message that comes twice, so a second graph of outputs alone is appended.
    """
    values = b"".join(
        _length_delimited(_GRAPH_OUTPUT, _length_delimited(1, name.encode())) for name in names
    )
    return content + _length_delimited(_GRAPH, values)


def _read_graph(graph: Graph, content: Buffer) -> None:
    for number, value in _fields(content):
        if number == _GRAPH_NODE:
            graph.nodes.append(_read_node(_buffer(value)))
        elif number == _GRAPH_WEIGHT:
            name, elements = _read_weight(_buffer(value))
            graph.weights[name] = elements
        elif number == _GRAPH_OUTPUT:
            graph.outputs.append(_read_text(_buffer(value), 1))
        elif number == _GRAPH_SPARSE_WEIGHT:
            raise Unreadable("the model has sparse weights")


def _read_node(content: Buffer) -> Node:
    node = Node()
    for number, value in _fields(content):
        if number == _NODE_INPUT:
            node.inputs.append(_text(value))
        elif number == _NODE_OUTPUT:
            node.outputs.append(_text(value))
        elif number == _NODE_KIND:
            node.kind = _text(value)
        elif number == _NODE_ATTRIBUTE:
            name, attribute = _read_attribute(_buffer(value))
            node.attributes[name] = attribute
        elif number == _NODE_DOMAIN:
            node.domain = _text(value)
    return node


def _read_attribute(content: Buffer) -> tuple[str, object]:
    name = ""
    result: object = None
    numbers: list[int] = []
    for number, value in _fields(content):
        if number == 1:
            name = _text(value)
        elif number == _ATTRIBUTE_NUMBER and isinstance(value, int):
            result = _signed(value)
        elif number == _ATTRIBUTE_TEXT:
            result = bytes(_buffer(value)).decode(errors="replace")
        elif number == _ATTRIBUTE_NUMBERS:
            # Writers of Protobuf may pack repeated numbers or not, and readers must take both.
            numbers.extend([_signed(value)] if isinstance(value, int) else _packed(value))
    return name, numbers or result


def _read_opset(graph: Graph, content: Buffer) -> None:
    domain, version = "", 1
    for number, value in _fields(content):
        if number == 1:
            domain = _text(value)
        elif number == _OPSET_VERSION and isinstance(value, int):
            version = value
    if domain in ("", "ai.onnx"):
        graph.opset = version


def _read_weight(content: Buffer) -> tuple[str, int]:
    """Return the name of an initializer and its number of elements."""
    name, dims = "", []
    for number, value in _fields(content):
        if number == 1:
            dims.extend([value] if isinstance(value, int) else _packed(value))
        elif number == _WEIGHT_NAME:
            name = _text(value)
    return name, math.prod(dims)


def _read_text(content: Buffer, wanted: int) -> str:
    return next((_text(value) for number, value in _fields(content) if number == wanted), "")


def _fields(content: Buffer) -> Iterator[tuple[int, FieldValue]]:
    """Yield the number and the value of each field of a message."""
    position, end = 0, len(content)
    while position < end:
        tag, position = _varint(content, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _varint(content, position)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, position = _varint(content, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise Unreadable("the file is not Protobuf")
        if position + size > end:
            raise Unreadable("the file ends within a field")
        yield tag >> 3, content[position : position + size]
        position += size


def _varint(content: Buffer, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < _CONTINUES:
            return value, position
        shift += 7


def _packed(content: Buffer) -> list[int]:
    numbers, position = [], 0
    while position < len(content):
        value, position = _varint(content, position)
        numbers.append(_signed(value))
    return numbers


def _signed(value: int) -> int:
    # Protobuf writes negative numbers as 64 bits in two's complement.
    return value - (1 << 64) if value >= 1 << 63 else value


def _buffer(value: FieldValue) -> Buffer:
    if isinstance(value, int):
        raise Unreadable("a number stands where a message belongs")
    return value


def _text(value: FieldValue) -> str:
    return bytes(_buffer(value)).decode()


def _length_delimited(number: int, content: bytes) -> bytes:
    return _encode(number << 3 | _BYTES) + _encode(len(content)) + content


def _encode(value: int) -> bytes:
    encoded = bytearray()
    while value >= _CONTINUES:
        encoded.append(value & 0x7F | _CONTINUES)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
