from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from meshserve.runtimes import triton_backend


def f32(values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_stand_in_has_what_models_import() -> None:
    with triton_backend.STAND_IN.held():
        module = sys.modules[triton_backend.NAME]
        assert module.Tensor is triton_backend.Tensor
        assert module.TritonError.INVALID_ARG == 3
        assert module.MetricFamily.COUNTER == 0
    assert triton_backend.NAME not in sys.modules


def test_datatypes_are_those_of_a_configuration() -> None:
    assert triton_backend.triton_string_to_numpy("TYPE_FP16") is np.float16
    assert triton_backend.triton_string_to_numpy("TYPE_STRING") is np.object_
    assert triton_backend.numpy_to_triton_type(np.uint8) == "TYPE_UINT8"
    assert triton_backend.numpy_to_triton_type(np.object_) == "TYPE_STRING"
    for name in ("TYPE_BF16",):
        with pytest.raises(triton_backend.TritonModelException):
            triton_backend.triton_string_to_numpy(name)


def test_a_configuration_has_numbers_and_the_fields_that_models_read() -> None:
    tensor = {"name": "x", "dims": ["-1", "2"], "reshape": {"shape": ["2", "-1"]}}
    shown = json.loads(triton_backend.config_json({"input": [tensor]}))
    assert shown == {
        "max_batch_size": 0,
        "parameters": {},
        "input": [{"name": "x", "dims": [-1, 2], "reshape": {"shape": [2, -1]}}],
        "output": [],
    }


def test_tensors_share_memory_with_other_libraries() -> None:
    tensor = triton_backend.Tensor.from_dlpack("x", f32([1, 2]))
    assert (tensor.name(), tensor.shape(), tensor.is_cpu()) == ("x", (2,), True)


def test_metrics_of_a_model_s_own_are_kept_for_it() -> None:
    family = triton_backend.UnshownMetrics(
        name="requests", description="how many", kind=triton_backend.UnshownMetrics.GAUGE
    )
    metric = family.Metric(labels={"a": "b"})
    metric.increment(2)
    metric.observe(9)
    assert metric.value() == 2
    metric.set(5)
    assert metric.value() == 5


def test_a_request_says_what_its_caller_said() -> None:
    said = {"timeout": 7, "priority": 2, "triton_x": 1, "headers": {}, "own": [1]}
    request = triton_backend.BackendRequest([], ["y"], "m", "v2", request_id="9", parameters=said)
    assert (request.timeout(), request.priority(), request.request_id()) == (7, 2, "9")
    assert json.loads(request.parameters()) == {"own": [1]}
    assert request.model_version() == 1
    plain = triton_backend.BackendRequest([])
    assert (plain.timeout(), plain.parameters(), plain.request_id()) == (0, "{}", "")
    assert triton_backend.TritonError("x").code() == triton_backend.TritonError.INTERNAL
