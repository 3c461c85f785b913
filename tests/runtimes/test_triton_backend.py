from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve.runtimes import triton_backend


def f32(values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_module_is_there_only_while_it_is_held(tmp_path: Path) -> None:
    with triton_backend.held(), triton_backend.held():
        assert sys.modules[triton_backend.NAME].Tensor is triton_backend.Tensor
    assert triton_backend.NAME not in sys.modules
    (tmp_path / "model.py").write_text("import os")
    with triton_backend.held_for(tmp_path):
        assert triton_backend.NAME not in sys.modules
    (tmp_path / "other.py").write_text(f"import {triton_backend.NAME}")
    with triton_backend.held_for(tmp_path):
        assert triton_backend.NAME in sys.modules


def test_an_installed_module_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{triton_backend.NAME}.py").write_text("REAL = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    with triton_backend.held():
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
