from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from meshserve import errors
from meshserve.runtimes import onnx_state
from tests.runtimes import contract

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
OTHERS = ROWS * 10 + 5
NONE = ROWS[:0]


def normalizing(path: Path, opset: int, **attributes: Any) -> Path:
    """Save a BatchNormalization; with several outputs as exporters write it in training."""
    has_several = opset < 14 or attributes.get("training_mode")
    count = (3 if opset >= 14 else 5) if has_several else 1
    node = helper.make_node(
        "BatchNormalization",
        ["x", "scale", "bias", "mean", "var"],
        ["y", "new_mean", "new_var", "saved_mean", "saved_var"][:count],
        **attributes,
    )
    weights = [
        numpy_helper.from_array(np.full(4, value, np.float32), name)
        for name, value in (("scale", 1), ("bias", 0), ("mean", 0), ("var", 1))
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")
    ]
    graph = helper.make_graph([node], "g", values[:1], values[1:], weights)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), path)
    return path


def native(path: Path, rows: np.ndarray) -> np.ndarray:
    """Return what a session answers that never ran before."""
    return np.asarray(onnxruntime.InferenceSession(str(path)).run(None, {"x": rows})[0])


TRAINED = [(9, {}), (13, {}), (14, {"training_mode": 1}), (17, {"training_mode": 1})]


@pytest.mark.parametrize(("opset", "attributes"), TRAINED)
def test_the_library_alone_lets_runs_change_later_ones(
    tmp_path: Path, opset: int, attributes: dict[str, Any]
) -> None:
    session = onnxruntime.InferenceSession(str(normalizing(tmp_path / "m", opset, **attributes)))
    before = session.run(None, {"x": ROWS})[0]
    session.run(None, {"x": OTHERS})
    # Where this fails, a release keeps no state any more, and the module is not needed for it.
    assert not np.array_equal(session.run(None, {"x": ROWS})[0], before)
    session.run(None, {"x": NONE})
    assert np.isnan(session.run(None, {"x": ROWS})[0]).all()


@pytest.mark.parametrize(("opset", "attributes"), TRAINED)
def test_no_request_changes_the_answer_to_another(
    tmp_path: Path, opset: int, attributes: dict[str, Any]
) -> None:
    path = normalizing(tmp_path / "model.onnx", opset, **attributes)
    loaded = contract.load(tmp_path)
    assert not loaded.signature.can_join
    for rows in (ROWS, OTHERS, NONE, ROWS, OTHERS):
        assert np.array_equal(loaded.predict({"x": rows}, ())["y"], native(path, rows))


@pytest.mark.parametrize(("opset", "attributes"), [*TRAINED, (7, {})])
def test_models_in_training_are_found_by_their_file(
    tmp_path: Path, opset: int, attributes: dict[str, Any]
) -> None:
    assert onnx_state.keeps_state(normalizing(tmp_path / "m.onnx", opset, **attributes))


def test_evaluated_models_keep_their_session(tmp_path: Path) -> None:
    assert not onnx_state.keeps_state(normalizing(tmp_path / "m.onnx", 17, training_mode=0))


def test_big_models_in_training_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalizing(tmp_path / "model.onnx", 17, training_mode=1)
    monkeypatch.setattr(onnx_state, "SIZE_MAX", 10)
    with pytest.raises(errors.LoadFailed, match=r"export it in evaluation mode"):
        contract.load(tmp_path)
