"""What Triton's FIL backend makes of a forest's scores: classes, or a probability for each class.

See `docs/model_config.md` of https://github.com/triton-inference-server/fil_backend.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.values import model

Scores = Callable[[Any], Any]

BACKEND = "fil"
CLASSIFIER = ("output_class", "is_classifier")
"""The parameter that says that a forest classifies, by its old and its new name."""

BINARY_CLASSES = 2
MATRIX_RANK = 2


def described(predict: Scores, spec: model.ModelSpec, *, gives_labels: bool) -> Scores:
    """Return a function of rows that gives what the model's configuration for FIL says.

    `predict` takes rows of shape [rows, features] and gives scores [rows] or [rows, classes]. It is
    returned as it is for other models. `gives_labels`: it gives classes already. Raises LoadFailed
    for a threshold that is no number, and for probabilities of what gives classes.
    """
    config = json.loads(spec.description)["config"] if spec.description else {}
    if config.get("backend") != BACKEND:
        return predict
    parameters = config.get("parameters", {})
    if _is_true(parameters, "predict_proba"):
        if gives_labels:
            raise errors.LoadFailed(
                "parameter predict_proba: the forest gives classes alone, as by multi:softmax; "
                "train it with multi:softprob, or set predict_proba to false"
            )
        # Its older versions answer [rows, 2] for two classes, newer ones [rows, 1].
        dims = [int(size) for output in config.get("output", ()) for size in output.get("dims", ())]
        return _both_classes(predict) if dims == [BINARY_CLASSES] else predict
    if not any(_is_true(parameters, name) for name in CLASSIFIER) or gives_labels:
        return predict
    return _best_class(predict, _threshold(parameters))


def _text(parameters: Mapping[str, Any], name: str) -> str:
    return str(parameters.get(name, {}).get("string_value", ""))


def _is_true(parameters: Mapping[str, Any], name: str) -> bool:
    return _text(parameters, name).lower() in ("true", "1", "yes", "on")


def _threshold(parameters: Mapping[str, Any]) -> float:
    text = _text(parameters, "threshold") or "0.5"  # FIL has the same default.
    try:
        return float(text)
    except ValueError:
        raise errors.LoadFailed(f"parameter threshold: {text!r} is not a number") from None


def _both_classes(predict: Scores) -> Scores:
    def probabilities(rows: Any) -> np.ndarray:
        scores = np.asarray(predict(rows))
        if scores.ndim == MATRIX_RANK and scores.shape[1] != 1:
            return scores
        positive = scores.reshape(-1)
        return np.stack([1 - positive, positive], axis=1)

    return probabilities


def _best_class(predict: Scores, threshold: float) -> Scores:
    def classes(rows: Any) -> np.ndarray:
        scores = np.asarray(predict(rows))
        if scores.ndim == MATRIX_RANK and scores.shape[1] != 1:
            # FIL gives class numbers as FP32, and its folders declare them so.
            return np.asarray(scores.argmax(axis=1), np.float32)
        return np.asarray(scores.reshape(-1) > threshold, np.float32)

    return classes
