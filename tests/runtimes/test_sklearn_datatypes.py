"""scikit-learn computes otherwise with FP32 or whole numbers: it gets them as they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn import (
    cluster,
    decomposition,
    feature_extraction,
    linear_model,
    naive_bayes,
    neighbors,
    pipeline,
    preprocessing,
    semi_supervised,
)

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.protocol import inference, tensors
from tests.runtimes import asking, contract

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int)
ROWS: dict[str, np.ndarray] = {
    "FP32": X[:5].astype(np.float32),
    "FP64": X[:5],
    "INT64": (X[:5] * 3).round().astype(np.int64),
    "UINT8": np.abs(X[:5] * 3).round().astype(np.uint8),
    "FP16": X[:5].astype(np.float16),
    "BOOL": X[:5] > 0,
}

ESTIMATORS: dict[str, Any] = {
    "scaler": preprocessing.StandardScaler(),
    "binarizer": preprocessing.Binarizer(threshold=0.1),
    "identity": preprocessing.FunctionTransformer(),
    "reciprocals": preprocessing.FunctionTransformer(np.reciprocal),
    "normalizer": preprocessing.Normalizer(),
    "components": decomposition.PCA(2),
    "neighbors": neighbors.KNeighborsRegressor(3),
    "regression": linear_model.Ridge(),
    "bayes": naive_bayes.GaussianNB(),
    "kernel": semi_supervised.LabelSpreading(),
    "steps": pipeline.make_pipeline(
        preprocessing.MinMaxScaler(), linear_model.LogisticRegression()
    ),
}


def load(folder: Path, fitted: Any) -> model_runtime.LoadedModel:
    joblib.dump(fitted, folder / "model.joblib")
    return contract.load(folder, trust=True)


def ask(loaded: model_runtime.LoadedModel, datatype: str, rows: np.ndarray) -> np.ndarray:
    call = inference.InferCall("", inputs={"x": tensors.WireTensor(datatype, rows)})
    return next(iter(loaded.predict(inference.check_inputs(call, loaded.signature), ()).values()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fitted_on", ["FP32", "FP64", "INT64"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_answers_are_the_library_s_bit_by_bit(tmp_path: Path, name: str, fitted_on: str) -> None:
    table = (X * 3).round().astype(np.int64) if fitted_on == "INT64" else X
    fitted = ESTIMATORS[name].fit(table.astype(ROWS[fitted_on].dtype), Y)
    function = fitted.predict if hasattr(fitted, "predict") else fitted.transform
    loaded = load(tmp_path, fitted)
    for datatype, rows in ROWS.items():
        right = np.asarray(function(rows))
        answer = ask(loaded, datatype, rows)
        assert answer.dtype == right.dtype
        assert np.array_equal(answer, right, equal_nan=True)
    for rows in (ROWS["FP64"], ROWS["INT64"]):
        right = np.asarray(function(np.asarray(rows.tolist())))
        # JSON has no NaN, so they are compared as texts.
        assert str(asking.predictions(loaded, rows.tolist())) == str(right.tolist())


@pytest.mark.parametrize(
    "model", [cluster.KMeans(3, n_init=1), cluster.BisectingKMeans(3)], ids=str
)
def test_a_model_fitted_on_single_numbers_takes_them(tmp_path: Path, model: Any) -> None:
    fitted = model.fit(X.astype(np.float32))
    loaded = load(tmp_path, fitted)
    assert loaded.signature.inputs[0].datatype == "FP32"
    right = fitted.predict(ROWS["FP32"]).tolist()
    assert ask(loaded, "FP32", ROWS["FP32"]).tolist() == right
    # The library refuses these.
    assert ask(loaded, "FP64", ROWS["FP64"]).tolist() == right
    assert asking.predictions(loaded, ROWS["FP64"].tolist()) == right


def test_whole_numbers_beyond_doubles_are_told_apart(tmp_path: Path) -> None:
    numbers = np.arange(2**53, 2**53 + 20)
    loaded = load(tmp_path, preprocessing.OrdinalEncoder().fit(numbers.reshape(-1, 1)))
    asked = [[2**53 + 1], [2**53 + 3]]
    assert asking.predictions(loaded, asked) == [[1.0], [3.0]]
    assert ask(loaded, "INT64", np.array(asked)).tolist() == [[1.0], [3.0]]


@pytest.mark.parametrize(
    "encoder", [preprocessing.LabelEncoder(), preprocessing.LabelBinarizer()], ids=str
)
@pytest.mark.parametrize("kind", [str, object])
def test_encoders_of_labels_take_texts(tmp_path: Path, encoder: Any, kind: Any) -> None:
    fitted = encoder.fit(np.array(["red", "green", "blue"], dtype=kind))
    loaded = load(tmp_path, fitted)
    assert loaded.signature.inputs[0].datatype == "BYTES"
    right = fitted.transform(["blue", "red"]).tolist()
    assert ask(loaded, "BYTES", np.array([b"blue", b"red"], object)).tolist() == right
    assert asking.predictions(loaded, ["blue", "red"]) == right
    if isinstance(encoder, preprocessing.LabelEncoder):
        with pytest.raises(errors.InvalidRequest, match="black"):
            ask(loaded, "BYTES", np.array([b"black"], object))


def test_what_no_rows_break_is_a_refusal(tmp_path: Path) -> None:
    texts = feature_extraction.text
    union = pipeline.FeatureUnion(
        [("counts", texts.CountVectorizer()), ("hashes", texts.HashingVectorizer(n_features=4))]
    )
    loaded = load(tmp_path, union.fit(["a cat", "the dog"]))
    with pytest.raises(errors.InvalidRequest):
        ask(loaded, "BYTES", np.array([], object))


def test_an_estimator_of_any_width_shows_no_made_up_one(tmp_path: Path) -> None:
    loaded = load(tmp_path, preprocessing.FunctionTransformer())
    assert loaded.signature.inputs[0].shape == (-1, -1)
    assert loaded.signature.outputs[0].shape == (-1, -1)
    rows = np.ones((2, 7))
    assert np.array_equal(ask(loaded, "FP64", rows), rows)
