from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import onnx_sessions
from tests.runtimes import contract, test_onnx


@pytest.mark.parametrize("level", ["all", "basic", "off", False])
def test_options_are_read(tmp_path: Path, level: Any) -> None:
    path = test_onnx.linear(tmp_path / "m.onnx")
    loaded = contract.load(
        path,
        options={
            "intra_op_num_threads": 2,
            "graph_optimization": level,
            "enable_mem_pattern": True,
        },
    )
    assert loaded.predict(loaded.probe or {}, ())["p"].shape == (1, 10)
    for wrong in ({"graph_optimization": "most"}, {"intra_op_num_threads": "two"}):
        with pytest.raises(errors.LoadFailed, match=next(iter(wrong))):
            contract.load(path, options=wrong)


def test_the_smallest_model_is_one() -> None:
    session = onnxruntime.InferenceSession(onnx_sessions.SMALLEST_MODEL)
    assert session.run(None, {"x": np.array(3, np.float32)})[0] == 3


@pytest.mark.parametrize(("size_bytes", "level"), [(1000, "BASIC"), (1 << 20, "ALL")])
def test_small_models_are_optimized_less_unless_asked_for_more(size_bytes: int, level: str) -> None:
    spec = model.ModelSpec(model.ModelId("m"), "")
    chosen = onnx_sessions.session_options(onnxruntime, spec, size_bytes)
    wanted = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    assert chosen.graph_optimization_level == wanted


def test_a_file_that_is_no_model_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(errors.LoadFailed, match=r"ONNX Runtime can't load m\.onnx"):
        onnx_sessions.open_session(
            onnxruntime, path.name, str(path), None, ["CPUExecutionProvider"]
        )
