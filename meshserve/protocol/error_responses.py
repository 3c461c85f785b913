"""Errors on the wire, deadlines, and which model a request's metadata names."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable
from urllib.parse import quote

import orjson
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from meshserve import errors

Header = tuple[bytes, bytes]
GRPC_TYPE: Header = (b"content-type", b"application/grpc")
JSON_TYPE: Header = (b"content-type", b"application/json")
UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
TIMEOUT_DIGITS_MAX = 8
MESSAGE_MAX = 2000
"""Characters of an error's message, in headers percent-encoded: with its details it stays below the 8 KiB that clients take."""

PRINTABLE = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
MODEL_METADATA = (b"mm-vmodel-id", b"mm-model-id")


def grpc_error(error: errors.MeshError) -> tuple[int, list[Header], bytes]:
    """Status, headers and body of a bridged gRPC answer that tells the error; a draining worker's is a 503, which is tried elsewhere."""
    if isinstance(error, errors.Unavailable):
        return rest_error(error)
    message, encoded = _bounded(error.message)
    headers = [
        GRPC_TYPE,
        (b"x-mesh-grpc-status", str(error.grpc_code).encode()),
        (b"x-mesh-grpc-message", encoded),
    ]
    if error.retry_after_s is not None:
        headers.append((b"x-mesh-grpc-details", base64.b64encode(_status(error, message))))
    return 200, headers, b""


def _bounded(message: str) -> tuple[str, bytes]:
    """As much of the message as headers have room for, plain and percent-encoded."""
    text = _text(message)
    encoded = quote(text, safe=PRINTABLE)
    while len(encoded) > MESSAGE_MAX:
        text = text[: len(text) * MESSAGE_MAX // len(encoded)]
        encoded = quote(text, safe=PRINTABLE)
    return text, encoded.encode()


def _text(message: str) -> str:
    """The message, not without end, and without half characters, which a model's own error or a file's name may bring."""
    return message[:MESSAGE_MAX].encode(errors="replace").decode()


def _status(error: errors.MeshError, message: str) -> bytes:
    """`google.rpc.Status` with RetryInfo."""
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(math.ceil((error.retry_after_s or 0.0) * 1000))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return bytes(
        status_pb2.Status(
            code=error.grpc_code, message=message, details=[detail]
        ).SerializeToString()
    )


def rest_error(error: errors.MeshError) -> tuple[int, list[Header], bytes]:
    """Status, headers and JSON body of a REST answer that tells the error."""
    headers = [JSON_TYPE]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
    return error.http_status, headers, orjson.dumps({"error": _text(error.message)})


def timeout_s(value: bytes) -> float:
    """Seconds in a `grpc-timeout` header (gRPC over HTTP/2: at most 8 digits and a unit). Raises InvalidRequest."""
    digits, unit = value[:-1], value[-1:]
    if not digits.isdigit() or len(digits) > TIMEOUT_DIGITS_MAX or unit not in UNITS_S:
        raise errors.InvalidRequest(
            f"grpc-timeout {value.decode('latin-1')!r} is not a number and one of H, M, S, m, u, n"
        )
    return int(digits) * UNITS_S[unit]


def named_by(headers: Iterable[Header]) -> str:
    """The model that the metadata names instead of the message (ModelMesh's headers), or an empty string."""
    found = {name: value for name, value in headers if name.startswith(b"mm-")}
    for name in MODEL_METADATA:
        if name in found:
            return found[name].decode("utf-8", "replace")
        if name + b"-bin" in found:
            return _from_base64(found[name + b"-bin"])
    return ""


def _from_base64(value: bytes) -> str:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise errors.InvalidRequest(
            "the model's name in the -bin metadata is not base64 of UTF-8"
        ) from None
