"""A small model of each runtime, with rows for it and what its own library answers."""

from __future__ import annotations

import textwrap
from pathlib import Path

import joblib
import lightgbm
import numpy as np
import onnxruntime
import torch
import xgboost
from sklearn.linear_model import LogisticRegression

from tests.runtimes import contract
from tests.runtimes.test_onnx import linear
from tests.worker import helpers

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.standard_normal((60, 4)).astype(np.float32)
CLASSES = np.array(["a", "b", "ü"])[np.arange(60) % 3]
ROWS = FEATURES[:6]


def python_class(folder: Path) -> contract.Sample:
    """A user's class."""
    path = folder / "model.py"
    path.write_text(textwrap.dedent(helpers.DOUBLED))
    rows = np.abs(ROWS[:, :2])
    return contract.Sample("python", path, {"x": rows}, {"y": rows * 2}, {"trust": True})


def onnx_graph(folder: Path) -> contract.Sample:
    """An ONNX graph."""
    path = linear(folder / "model.onnx")
    rows = {"x": RANDOM.standard_normal((5, 64)).astype(np.float32)}
    given = onnxruntime.InferenceSession(path).run(None, rows)
    return contract.Sample("onnx", path, rows, dict(zip(["p", "label"], given, strict=True)))


def pickled_estimator(folder: Path) -> contract.Sample:
    """A scikit-learn estimator with texts as classes."""
    fitted = LogisticRegression().fit(FEATURES.astype(np.float64), CLASSES)
    path = folder / "model.joblib"
    joblib.dump(fitted, path)
    rows = ROWS.astype(np.float64)
    answers = {
        "predict": np.array([text.encode() for text in fitted.predict(rows)], object),
        "predict_proba": fitted.predict_proba(rows),
    }
    return contract.Sample("sklearn", path, {"input": rows}, answers, {"trust": True})


def xgboost_booster(folder: Path) -> contract.Sample:
    """An XGBoost booster."""
    booster = xgboost.train({"max_depth": 2}, xgboost.DMatrix(FEATURES, FEATURES[:, 0]), 5)
    path = folder / "model.json"
    booster.save_model(path)
    answers = {"predict": booster.predict(xgboost.DMatrix(ROWS))}
    return contract.Sample("xgboost", path, {"input": ROWS}, answers)


def lightgbm_booster(folder: Path) -> contract.Sample:
    """A LightGBM booster."""
    labels = FEATURES[:, 0].copy()
    data = lightgbm.Dataset(FEATURES.astype(np.float64), labels, params={"verbose": -1})
    booster = lightgbm.train({"verbose": -1, "min_data_in_leaf": 2}, data, 5)
    path = folder / "model.txt"
    booster.save_model(path)
    rows = ROWS.astype(np.float64)
    return contract.Sample(
        "lightgbm", path, {"input": rows}, {"predict": np.asarray(booster.predict(rows))}
    )


def torch_export(folder: Path) -> contract.Sample:
    """An exported PyTorch module."""
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 2).eval()
    path = folder / "model.pt2"
    batch = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=batch), path)
    with torch.no_grad():
        answer = module(torch.from_numpy(ROWS)).numpy()
    return contract.Sample("torch", path, {"input": ROWS}, {"output": answer})


MAKERS = (
    python_class,
    onnx_graph,
    pickled_estimator,
    xgboost_booster,
    lightgbm_booster,
    torch_export,
)
