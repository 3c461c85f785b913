"""Translate gRPC's errors to meshserve's.

The status code gives the class, the server's message is kept, and a RetryInfo among the details
(https://cloud.google.com/apis/design/errors) becomes `retry_after_s`.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from meshserve import errors

DETAILS_KEY = "grpc-status-details-bin"
BY_CODE: dict[int, type[errors.MeshError]] = {
    kind.grpc_code: kind
    for kind in (
        errors.InvalidRequest,
        errors.ModelNotFound,
        errors.AlreadyExists,
        errors.LoadFailed,
        errors.Overloaded,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.ModelRaised,
        errors.Unsupported,
        errors.Unavailable,
        errors.DeadlineExceeded,
    )
}


def raised_by(failure: grpc.RpcError) -> errors.MeshError:
    """Return the error to raise instead of `failure`."""
    code, details = failure.code(), failure.details() or ""
    retry_after_s = _retry_after_s(failure.trailing_metadata() or ())
    kind = BY_CODE.get(code.value[0], errors.MeshError)
    # RESOURCE_EXHAUSTED means a full queue or a message over the size limit. The latter is known by
    # its text and never comes with a RetryInfo.
    if kind is errors.Overloaded and retry_after_s is None and "larger than" in details:
        kind = errors.PayloadTooLarge
    return kind(details or code.name, retry_after_s=retry_after_s)


def _retry_after_s(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    status, retry = status_pb2.Status(), error_details_pb2.RetryInfo()
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status.MergeFromString(value)
            except DecodeError:
                return None
    for detail in status.details:
        if detail.Unpack(retry):
            return float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
    return None
