from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import environments
from compat import onnx_models, triton_folders, world


def test_arrays_must_be_equal_in_every_way() -> None:
    right = np.array([1.0, np.nan], np.float32)
    world.equal(right.copy(), right)
    for wrong in (right.astype(np.float64), right[None], right + 1):
        with pytest.raises(AssertionError):
            world.equal(wrong, right)
    world.equal(np.array([b"a"], object), np.array(["a"], object))


def test_inputs_and_outputs_are_those_of_tritons_clients() -> None:
    for protocol in world.PROTOCOLS:
        (tensor,) = world.given(protocol, {"x": np.zeros((1, 2), np.int8)})
        assert (tensor.name(), tensor.datatype(), list(tensor.shape())) == ("x", "INT8", [1, 2])
        (output,) = world.wanted(protocol, "y", class_count=2)
        assert output.name() == "y"


def test_the_native_answer_is_onnx_runtimes(tmp_path: Path) -> None:
    path = tmp_path / "triton" / "texts" / "1" / "model.onnx"
    onnx_models.add_sub(path, ("STRING", "INT32", "STRING"), [2])
    texts = np.array([b"5", b"-7"], object)
    answer = world.World("", tmp_path, {}).native("texts", {"INPUT0": texts, "INPUT1": texts})
    world.same(
        answer, {"OUTPUT0": np.array([10, -14], np.int32), "OUTPUT1": np.array(["0", "0"], object)}
    )


def test_a_client_is_driven_by_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "peers" / "echo.py"
    program.parent.mkdir()
    program.write_text(
        f"import sys; sys.path.append({str(world.HERE / 'peers')!r})\n"
        "import lines\n"
        "class Echo:\n"
        "    def say(self, word):\n"
        "        print('aside')\n"
        "        return [word, 1 / (word != 'zero')]\n"
        "lines.serve(Echo())\n"
    )
    monkeypatch.setattr(world, "HERE", tmp_path)
    monkeypatch.setitem(world.PROGRAMS, "kserve", "echo.py")
    monkeypatch.setattr(environments, "make_environment", lambda _: Path("python3"))
    asked = world.World("", tmp_path, {})
    assert asked.peer("kserve", "say", word="ü") == ["ü", 1.0]
    with pytest.raises(AssertionError, match="ZeroDivisionError: "):
        asked.peer("kserve", "say", word="zero")
    asked.close()
    with pytest.raises(ValueError, match="closed"):
        asked.peer("kserve", "say", word="late")


def test_a_folder_has_its_configuration(tmp_path: Path) -> None:
    inputs = [("x", "FP32", [-1, 2], "optional: true")]
    outputs = [("y", "FP32", [1], "")]
    path = triton_folders.folder(tmp_path / "m", "onnxruntime", 4, inputs, outputs, "x {}")
    assert path == tmp_path / "m" / "1" / "model.onnx"
    text = (tmp_path / "m" / "config.pbtxt").read_text()
    assert "dims: [ -1, 2 ] optional: true" in text
    assert json.dumps("m") in text
