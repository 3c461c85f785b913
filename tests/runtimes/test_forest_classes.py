from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import forest_classes

BINARY = np.array([0.2, 0.45, 0.9], np.float32)
THREE = np.array([[0.2, 0.7, 0.1], [0.5, 0.1, 0.4]], np.float32)


def answer(
    scores: np.ndarray, dims: int = 1, *, backend: str = "fil", is_label: bool = False, **said: Any
) -> Any:
    """Return what a folder with these parameters answers for a forest with these scores."""
    config = {
        "backend": backend,
        "output": [{"name": "output__0", "dims": [str(dims)]}],
        "parameters": {name: {"string_value": value} for name, value in said.items()},
    }
    description = json.dumps({"config": config, "labels": {}})
    spec = model.ModelSpec(model.ModelId("m"), "", description=description)
    return forest_classes.described(lambda _: scores, spec, gives_labels=is_label)(None).tolist()


@pytest.mark.parametrize("name", forest_classes.CLASSIFIER)
def test_a_classifier_gives_classes(name: str) -> None:
    said: dict[str, Any] = {name: "true"}
    assert answer(BINARY, **said) == [0, 0, 1]
    assert answer(BINARY, **said, threshold="0.3") == [0, 1, 1]
    assert answer(BINARY[:, None], **said) == [0, 0, 1]
    assert answer(THREE, **said) == [1, 0]
    labels = np.array([2.0, 0.0])
    assert answer(labels, **said, is_label=True) == [2, 0]


def test_probabilities_have_as_many_columns_as_are_declared() -> None:
    said: dict[str, Any] = {"output_class": "true", "predict_proba": "true"}
    np.testing.assert_allclose(answer(BINARY, 2, **said), np.stack([1 - BINARY, BINARY], 1))
    np.testing.assert_array_equal(answer(BINARY, 1, **said), BINARY)
    np.testing.assert_array_equal(answer(THREE, 3, **said), THREE)
    with pytest.raises(errors.LoadFailed, match="multi:softprob"):
        answer(np.array([1.0, 0.0]), 2, **said, is_label=True)


def test_other_models_keep_their_scores() -> None:
    np.testing.assert_array_equal(answer(BINARY, output_class="false"), BINARY)
    np.testing.assert_array_equal(
        answer(BINARY, backend="onnxruntime", output_class="true"), BINARY
    )
    plain = model.ModelSpec(model.ModelId("m"), "")
    assert forest_classes.described(len, plain, gives_labels=False) is len


def test_a_threshold_is_a_number() -> None:
    with pytest.raises(errors.LoadFailed, match="'high' is not a number"):
        answer(BINARY, output_class="true", threshold="high")
