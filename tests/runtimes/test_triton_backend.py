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
