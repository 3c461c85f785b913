from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from bench import tiny


def test_the_file_says_what_numpy_says(tmp_path: Path) -> None:
    tiny.write(tmp_path / "tiny.onnx", 3)
    x = np.random.default_rng(0).standard_normal((5, tiny.INPUTS)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(tmp_path / "tiny.onnx").run(None, {"x": x})
    np.testing.assert_allclose(y, tiny.answer(3, x), rtol=1e-4, atol=1e-5)


def test_models_differ_by_their_seed() -> None:
    assert not np.array_equal(tiny.weights(1)["w1"], tiny.weights(2)["w1"])


def test_a_wider_middle_makes_a_bigger_file(tmp_path: Path) -> None:
    hidden = tiny.hidden_for(1 << 20)
    tiny.write(tmp_path / "big.onnx", 1, hidden)
    assert abs((tmp_path / "big.onnx").stat().st_size - (1 << 20)) < 1 << 14
    x = np.ones((1, tiny.INPUTS), np.float32)
    (y,) = onnxruntime.InferenceSession(tmp_path / "big.onnx").run(None, {"x": x})
    np.testing.assert_allclose(y, tiny.answer(1, x, hidden), rtol=1e-3, atol=1e-2)
