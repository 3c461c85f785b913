"""A user's own model: any class `Model` that predicts. The demo serves this file as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np


class Model:
    """Ridge regression: ten features in, the disease's progression in a year out."""

    inputs = (("features", "FP32", (-1, 10)),)
    outputs = (("progression", "FP32", (-1,)),)
    batchable = True

    def __init__(self, path: Path, options: Mapping[str, object]) -> None:  # noqa: ARG002 - this one has no options
        with np.load(path / "weights.npz") as weights:
            self.coefficients, self.intercept = weights["coefficients"], weights["intercept"]

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return one number a row: `inputs` are of shape (rows, 10)."""
        return {"progression": inputs["features"] @ self.coefficients + self.intercept}
