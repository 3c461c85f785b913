"""Inputs and answers in the words of Triton's clients, the same for both of their protocols."""

from __future__ import annotations

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.rpc import error_details_pb2, status_pb2

DETAILS = "grpc-status-details-bin"


def over_grpc(name, array, datatype):
    given = triton_grpc.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def over_http(name, array, datatype, *, is_binary=True):
    given = triton_http.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=is_binary)
    return given


def binary(*names):
    return [triton_http.InferRequestedOutput(name, binary_data=True) for name in names]


def texts(*words):
    return np.array([word.encode() for word in words], object)


def sleeper(seconds, name, over=over_grpc):
    """Return the inputs of a sleeping model."""
    return [over("seconds", np.array([seconds]), "FP64"), over("name", texts(name), "BYTES")]


def retry_s(error):
    """Return the seconds in the error's RetryInfo, or None."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            status = status_pb2.Status.FromString(value)
            info = error_details_pb2.RetryInfo()
            assert status.details[0].Unpack(info)
            return info.retry_delay.ToMilliseconds() / 1000
    return None
