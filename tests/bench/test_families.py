from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import families, samples, tiny

SMALL = families.Family(
    "torch, 1 MB",
    families.torch_family(1 << 20),
    families.asks(families.wide_rows(1 << 20), samples.ask_torch),
)


@pytest.mark.parametrize(
    "family",
    [families.TINY, families.SKLEARN, families.XGBOOST, SMALL],
    ids=lambda family: family.name,
)
def test_models_of_a_family_differ_and_answer(tmp_path: Path, family: Any) -> None:
    paths = list(family.write(tmp_path, 3))
    assert len({path.read_bytes() for path in paths}) == 3
    for path in paths:
        rows, answer = family.ask(path)
        assert len(rows) == len(answer)


def test_a_tiny_one_has_the_weights_that_it_was_given(tmp_path: Path) -> None:
    path = list(families.tiny_models(tmp_path, 3))[2]
    x = np.ones((1, tiny.INPUTS), np.float32)
    w = tiny.weights(0) | {"w1": tiny.weights(2)["w1"]}
    expected = np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    np.testing.assert_allclose(samples.ask_onnx(path, x), expected, rtol=1e-4, atol=1e-5)
