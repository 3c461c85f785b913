"""Tiny models of every runtime, and their right answers."""

from __future__ import annotations

import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import skops.io
import torch
import xgboost
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

IRIS = load_iris(return_X_y=True)
WIDTH = 4
ROWS = np.array([[1, 2, 3, 4], [-1, 0.5, 0, 2], [5.1, 3.5, 1.4, 0.2]], np.float32)
DATATYPES = (
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
)
WORDS = "Größe 模型 ✓"


@dataclass(frozen=True)
class Kind:
    """One model: its entry in `models:`, the names of its input and output, its answer to ROWS."""

    entry: dict[str, Any]
    input: str
    output: str
    answer: np.ndarray
    datatype: str = "FP32"

    @property
    def name(self) -> str:
        return str(self.entry["name"])

    @property
    def rows(self) -> np.ndarray:
        return ROWS.astype(np.float64 if self.datatype == "FP64" else np.float32)


def write_onnx(path: Path, factor: float) -> np.ndarray:
    """Write a model of FP32 `x` [-1, 4] to FP32 `y` [-1, 2]: factor × (row sum, 2 × row sum)."""
    weights = np.array([[1, 2]] * WIDTH, np.float32) * factor
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return ROWS @ weights


def write_torch(path: Path) -> np.ndarray:
    """Write a TorchScript model of FP32 [-1, 4] to FP32 [-1, 2]."""
    layer = torch.nn.Linear(WIDTH, 2)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # TorchScript is deprecated, and what many have
        layer.weight.copy_(torch.arange(8.0).reshape(2, WIDTH))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
        torch.jit.save(torch.jit.trace(layer.eval(), torch.zeros(1, WIDTH)), path)
        return np.asarray(layer(torch.from_numpy(ROWS)))


def write_python(folder: Path, source: str) -> str:
    """Write a folder with `model.py`; return its path."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(textwrap.dedent(source))
    return str(folder)


def kinds(folder: Path) -> tuple[Kind, ...]:
    """Return one model of each library."""
    sum_and_double = write_onnx(folder / "linear.onnx", 1)
    scripted = write_torch(folder / "scripted.pt")
    fitted = LogisticRegression(max_iter=300).fit(*IRIS)
    skops.io.dump(fitted, folder / "iris.skops")
    booster = xgboost.train({"nthread": 1, "max_depth": 2}, xgboost.DMatrix(*IRIS), 3)
    booster.save_model(folder / "iris.ubj")
    forest = lightgbm.train({"verbosity": -1, "num_threads": 1}, lightgbm.Dataset(*IRIS), 3)
    forest.save_model(folder / "iris.txt")
    doubled = write_python(folder / "doubled", DOUBLED)
    shapes = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, WIDTH]}]}
    return (
        Kind({"name": "linear", "uri": str(folder / "linear.onnx")}, "x", "y", sum_and_double),
        Kind(
            {"name": "scripted", "uri": str(folder / "scripted.pt"), "runtime": "torch", **shapes},
            "x",
            "output",
            scripted,
        ),
        Kind(
            {"name": "iris", "uri": str(folder / "iris.skops")},
            "input",
            "predict",
            fitted.predict(ROWS.astype(np.float64)),
            "FP64",
        ),
        Kind(
            {"name": "boosted", "uri": str(folder / "iris.ubj")},
            "input",
            "predict",
            booster.predict(xgboost.DMatrix(ROWS)),
        ),
        Kind(
            {"name": "forest", "uri": str(folder / "iris.txt"), "runtime": "lightgbm"},
            "input",
            "predict",
            np.asarray(forest.predict(ROWS)),
            "FP64",
        ),
        Kind(
            {"name": "doubled", "uri": doubled, "runtime": "python", "trust": True},
            "x",
            "y",
            ROWS * 2,
        ),
    )


DOUBLED = """
    class Model:
        inputs = [("x", "FP32", [-1, 4])]
        outputs = [("y", "FP32", [-1, 4])]
        batchable = True

        def predict(self, inputs):
            return {"y": inputs["x"] * 2}
"""
