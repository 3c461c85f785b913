"""Inputs and answers in the words of Triton's clients, the same for both of their protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.rpc import error_details_pb2, status_pb2

DETAILS = "grpc-status-details-bin"


def over_grpc(name: str, array: np.ndarray, datatype: str) -> triton_grpc.InferInput:
    given = triton_grpc.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def over_http(
    name: str, array: np.ndarray, datatype: str, *, is_binary: bool = True
) -> triton_http.InferInput:
    given = triton_http.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=is_binary)
    return given


def binary(*names: str) -> list[triton_http.InferRequestedOutput]:
    return [triton_http.InferRequestedOutput(name, binary_data=True) for name in names]


def texts(*words: str) -> np.ndarray:
    return np.array([word.encode() for word in words], object)


def sleeper(seconds: float, name: str, over: Callable[..., Any] = over_grpc) -> list[Any]:
    """Return the inputs of a sleeping model."""
    return [over("seconds", np.array([seconds]), "FP64"), over("name", texts(name), "BYTES")]


def retry_s(error: grpc.RpcError) -> float | None:
    """Return the seconds in the error's RetryInfo, or None."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            status = status_pb2.Status.FromString(value)
            info = error_details_pb2.RetryInfo()
            assert status.details[0].Unpack(info)
            return float(info.retry_delay.ToMilliseconds() / 1000)
    return None
