from __future__ import annotations

from typing import Any

import grpc
import pytest

from meshserve import errors
from meshserve.client import grpc_errors


class Failure(grpc.RpcError):  # type: ignore[misc]  # gRPC comes without types
    """What both of gRPC's clients raise, as far as it is read."""

    def __init__(self, code: grpc.StatusCode, details: str = "", trailers: Any = ()) -> None:
        self.code, self.details, self.trailing_metadata = (
            (lambda: code),
            (lambda: details),
            (lambda: trailers),
        )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, errors.ModelNotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.LoadFailed),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Overloaded),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDenied),
        (grpc.StatusCode.INTERNAL, errors.ModelRaised),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Unsupported),
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.DATA_LOSS, errors.MeshError),
    ],
)
def test_the_code_chooses_the_class(code: grpc.StatusCode, kind: type[errors.MeshError]) -> None:
    raised = grpc_errors.raised_by(Failure(code, "why"))
    assert (type(raised), raised.message, raised.retry_after_s) == (kind, "why", None)


def test_details_that_are_no_status_are_left_out() -> None:
    raised = grpc_errors.raised_by(
        Failure(grpc.StatusCode.UNAVAILABLE, "", ((grpc_errors.DETAILS_KEY, b"\xff\xff"),))
    )
    assert (raised.message, raised.retry_after_s) == ("UNAVAILABLE", None)
