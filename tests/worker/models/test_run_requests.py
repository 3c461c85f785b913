"""Rows of several requests become one run's, and separate again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.worker.models import run_requests


def request(*rows: int, dtype: Any = np.float32, **more: Any) -> run_requests.RunRequest:
    fields: dict[str, Any] = {"outputs": (), "rows": len(rows), "expires_s": math.inf} | more
    return run_requests.RunRequest({"x": np.array(rows, dtype)[:, None]}, **fields)


def test_rows_are_joined_and_split_in_order() -> None:
    requests = [request(1, 2), request(3)]
    joined = run_requests.join(requests)
    assert (joined.inputs["x"].tolist(), joined.rows) == ([[1], [2], [3]], 3)
    parts = run_requests.split({"y": joined.inputs["x"]}, requests)
    assert [part["y"].tolist() for part in parts] == [[[1], [2]], [[3]]]
    with pytest.raises(run_requests.RowsLost):
        list(run_requests.split({"y": joined.inputs["x"][1:]}, requests))


@pytest.mark.parametrize(
    ("other", "can_join"),
    [
        (request(1, 2, 3), True),
        (request(1, dtype=np.float64), False),
        (request(1, outputs=("y",)), False),
        (request(), False),
        (run_requests.RunRequest({"x": np.zeros((1, 2), np.float32)}, (), 1, 0.0), False),
        (run_requests.RunRequest({"z": np.zeros((1, 1), np.float32)}, (), 1, 0.0), False),
    ],
)
def test_only_requests_that_differ_in_rows_alone_are_joined(
    other: run_requests.RunRequest, can_join: bool
) -> None:
    assert run_requests.can_join(request(1), other) is can_join
    seen = request(1, details=model_runtime.RequestDetails())
    assert not run_requests.can_join(seen, other)


def test_the_answer_of_a_joined_run_is_compared_with_that_of_a_request_alone() -> None:
    alone = {"y": np.array([1.0])}
    assert run_requests.find_difference(alone, {"y": np.array([1.0])}) is None
    assert "'y'" in str(run_requests.find_difference(alone, {"y": np.array([2.0])}))
    refused = run_requests.find_difference(errors.InvalidRequest("no"), alone)
    assert refused == "alone it is refused (no)"
