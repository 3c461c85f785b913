from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from bench import wide


def test_the_file_says_what_numpy_says(tmp_path: Path) -> None:
    wide.write(tmp_path / "wide.onnx")
    x = wide.rows(8 << 10)
    assert x.nbytes == 8 << 10
    (y,) = onnxruntime.InferenceSession(tmp_path / "wide.onnx").run(None, {"x": x})
    np.testing.assert_allclose(y, wide.answer(x), rtol=1e-3, atol=1e-4)
