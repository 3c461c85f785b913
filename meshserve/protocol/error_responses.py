"""Encode errors as answers: for bridged gRPC in headers, for REST in JSON."""

from __future__ import annotations

import base64
import math
from urllib.parse import quote

import orjson
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from meshserve import errors

Header = tuple[bytes, bytes]
GRPC_TYPE: Header = (b"content-type", b"application/grpc")
JSON_TYPE: Header = (b"content-type", b"application/json")
FINAL: Header = (b"x-envoy-ratelimited", b"true")
"""Has Envoy give this answer to the client, where it would try another worker for the status."""
MESSAGE_MAX = 2000
"""Characters of a message, in headers after percent-encoding.

With its details it then stays below the 8 KiB of metadata that gRPC clients take.
"""

# With letters and digits, all of ASCII that gRPC's percent-encoding leaves as it is.
PRINTABLE = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


def grpc_error(error: errors.MeshError) -> tuple[int, tuple[Header, ...], bytes]:
    """Return status, headers and body of a bridged gRPC answer. Envoy turns headers to trailers.

    A draining worker's error is a 503, which Envoy retries on another worker.
    """
    # What a model's own code says would be the same on another worker.
    if isinstance(error, errors.Unavailable) and not isinstance(error, errors.ModelUnavailable):
        return rest_error(error)
    message, encoded = _bounded(error.message)
    # The bridge sets a status and trailers of its own, which Envoy's route replaces by these.
    headers = [
        GRPC_TYPE,
        (b"x-mesh-grpc-status", str(error.grpc_code).encode()),
        (b"x-mesh-grpc-message", encoded),
    ]
    if error.retry_after_s is not None:
        headers.append((b"x-mesh-grpc-details", base64.b64encode(_status(error, message))))
    return 200, tuple(headers), b""


def _bounded(message: str) -> tuple[str, bytes]:
    """Return as much of the message as headers have room for, plain and percent-encoded."""
    text = _text(message)
    encoded = quote(text, safe=PRINTABLE)
    # One character may take twelve bytes here, so the text is cut in proportion until it fits.
    while len(encoded) > MESSAGE_MAX:
        text = text[: len(text) * MESSAGE_MAX // len(encoded)]
        encoded = quote(text, safe=PRINTABLE)
    return text, encoded.encode()


def _text(message: str) -> str:
    """Return the message cut to its limit, with "?" for surrogates, which file names may hold."""
    return message[:MESSAGE_MAX].encode(errors="replace").decode()


def _status(error: errors.MeshError, message: str) -> bytes:
    """Return a serialised `google.rpc.Status` with RetryInfo."""
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(math.ceil((error.retry_after_s or 0.0) * 1000))
    detail = any_pb2.Any()
    # gRPC's usual form of what REST says by `retry-after` (google/rpc/error_details.proto).
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return bytes(
        status_pb2.Status(
            code=error.grpc_code, message=message, details=[detail]
        ).SerializeToString()
    )


def rest_error(error: errors.MeshError) -> tuple[int, tuple[Header, ...], bytes]:
    """Return status, headers and JSON body of a REST answer."""
    headers = [JSON_TYPE]
    if isinstance(error, errors.ModelUnavailable):
        headers.append(FINAL)
    if error.retry_after_s is not None:
        # The header has whole seconds (RFC 9110, 10.2.3); sooner than asked would be too soon.
        headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
    return error.http_status, tuple(headers), orjson.dumps({"error": _text(error.message)})
