"""Ordinary tabular models, asked as clients ask them: answers are those of the library itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn import (
    calibration,
    cluster,
    compose,
    cross_decomposition,
    decomposition,
    ensemble,
    feature_extraction,
    impute,
    linear_model,
    mixture,
    multioutput,
    neighbors,
    pipeline,
    preprocessing,
    svm,
    tree,
)

from tests.runtimes import asking, contract

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
Y3 = np.digitize(X[:, 0], [-0.5, 0.5])
SCORES = X @ [1.0, 2, 3, 4]
MANY = np.stack([Y, Y3 > 0, X[:, 2] > 0], axis=1).astype(int)
TEXTS = ["the cat sat", "a dog ran", "the dog sat"] * 20

LOGISTIC = linear_model.LogisticRegression()
PARTS = [("a", LOGISTIC), ("b", tree.DecisionTreeClassifier(max_depth=2))]

ESTIMATORS: dict[str, tuple[Any, Any]] = {
    "outliers": (ensemble.IsolationForest(n_estimators=5), None),
    "novelties": (neighbors.LocalOutlierFactor(novelty=True), None),
    "one class": (svm.OneClassSVM(), None),
    "clusters": (cluster.KMeans(3, n_init=1), None),
    "mixture": (mixture.GaussianMixture(2), None),
    "dense transform": (decomposition.PCA(2), None),
    "sparse transform": (preprocessing.KBinsDiscretizer(3), None),
    "gaps": (impute.MissingIndicator(features="all"), None),
    "texts for labels": (LOGISTIC, np.array(["no", "yes"])[Y]),
    "booleans for labels": (LOGISTIC, Y > 0),
    "negative labels": (svm.SVC(), Y * 2 - 1),
    "calibrated": (calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2), Y3),
    "stacking": (ensemble.StackingClassifier(PARTS, cv=2), Y3),
    "hard voting": (ensemble.VotingClassifier(PARTS), Y3),
    "soft voting": (ensemble.VotingClassifier(PARTS, voting="soft"), Y3),
    "histograms": (ensemble.HistGradientBoostingClassifier(max_iter=3), Y3),
    "several scores": (linear_model.LinearRegression(), X[:, :3] * 2),
    "one score of several": (linear_model.LinearRegression(), X[:, :1]),
    "latent scores": (cross_decomposition.PLSRegression(2), X[:, :2] * 2),
    "chained scores": (multioutput.RegressorChain(linear_model.Ridge()), X[:, :2]),
    "several labels": (neighbors.KNeighborsClassifier(), MANY),
    "labels each": (multioutput.MultiOutputClassifier(LOGISTIC), MANY),
    "chained labels": (multioutput.ClassifierChain(LOGISTIC), MANY),
    "forest in scikit-learn's form": (lightgbm.LGBMRegressor(n_estimators=3, verbose=-1), SCORES),
    "labels of a booster": (xgboost.XGBClassifier(n_estimators=3), Y3),
}


def loaded_from(folder: Path, fitted: Any) -> Any:
    joblib.dump(fitted, folder / "model.joblib")
    return contract.load(folder / "model.joblib", trust=True)


def plain(values: Any) -> Any:
    """Return what a library gives as plain values: lists of targets become [rows, targets, …]."""
    dense = values.toarray() if hasattr(values, "toarray") else values
    return np.stack(dense, axis=1) if isinstance(dense, list) else np.asarray(dense)


def assert_same(answer: Any, expected: np.ndarray) -> None:
    if expected.dtype.kind in "OUS":
        assert answer == expected.tolist()
    else:
        numbers = np.array(answer, float)
        np.testing.assert_allclose(numbers, expected.astype(float), rtol=1e-6, atol=1e-9)


# As many rows as targets: their sizes must not be taken for each other.
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_answers_as_in_its_library(tmp_path: Path, name: str, rows: int) -> None:
    fitted = ESTIMATORS[name][0].fit(X, ESTIMATORS[name][1])
    loaded = loaded_from(tmp_path, fitted)
    asked = X[:rows]
    by_v2 = asking.ask_v2(loaded, ("whatever", "FP64", asked.tolist()))
    assert by_v2
    for output, answer in by_v2.items():
        expected = plain(getattr(fitted, output)(asked))
        assert_same(answer, expected)
        document = {"instances": asked.tolist(), "outputs": [output]}
        assert_same(asking.ask_v1(loaded, document)["predictions"], expected)


OBJECTIVES: dict[str, dict[str, Any]] = {
    "squared": {},
    "probability": {"objective": "binary:logistic", "base_score": 0.3},
    "margin": {"objective": "binary:logitraw"},
    "label": {"objective": "multi:softmax", "num_class": 3},
    "probabilities": {"objective": "multi:softprob", "num_class": 3},
    "ranking": {"objective": "rank:ndcg"},
    "dropped trees": {"booster": "dart", "rate_drop": 0.3},
    "linear": {"booster": "gblinear"},
    "parallel trees": {"num_parallel_tree": 3, "subsample": 0.5},
    "quantiles": {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]},
    "survival": {"objective": "survival:aft"},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_xgboost_model_answers_as_in_its_library(tmp_path: Path, name: str) -> None:
    settings = {"nthread": 1, "seed": 1, **OBJECTIVES[name]}
    labels = Y3 if name in ("label", "probabilities", "ranking") else Y
    rows = X.astype(np.float32)
    matrix = xgboost.DMatrix(rows, labels, base_margin=None)
    if name == "ranking":
        matrix.set_group([30, 30])
    if name == "survival":
        for bound in ("label_lower_bound", "label_upper_bound"):
            matrix.set_float_info(bound, labels + 1.0)
    booster = xgboost.train(settings, matrix, 5)
    booster.save_model(tmp_path / "model.ubj")
    loaded = contract.load(tmp_path / "model.ubj")
    expected = booster.predict(xgboost.DMatrix(rows[:3]))
    for datatype in ("FP32", "FP64"):
        answer = asking.ask_v2(loaded, ("input-0", datatype, rows[:3].tolist()))
        np.testing.assert_allclose(np.array(answer["predict"], float), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "binary"},
        {"objective": "multiclass", "num_class": 3},
        {"objective": "lambdarank"},
        {"boosting": "dart"},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"linear_tree": True},
        {"objective": "quantile", "alpha": 0.9},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_lightgbm_model_answers_as_in_its_library(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    is_ranking = settings.get("objective") == "lambdarank"
    labels = Y3 if is_ranking or "num_class" in settings else Y
    data = lightgbm.Dataset(X, labels, group=[30, 30] if is_ranking else None)
    common = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    booster = lightgbm.train({**common, **settings}, data, 5)
    booster.save_model(tmp_path / "model.txt")
    loaded = contract.load(tmp_path / "model.txt")
    answer = asking.ask_v2(loaded, ("input-0", "FP64", X[:3].tolist()))
    expected = booster.predict(X[:3])
    np.testing.assert_allclose(np.array(answer["predict"], float), expected, rtol=1e-9)


FRAME = pd.DataFrame(
    {
        "age": RNG.integers(18, 80, 60),
        "member": RNG.random(60) > 0.5,
        "city": np.array(["rome", "oslo", None], object)[RNG.integers(0, 3, 60)],
        "grade": pd.Categorical(RNG.choice(list("ABC"), 60)),
        "flag": RNG.choice(["True", "False"], 60),
        "when": pd.date_range("2024-01-01", periods=60).astype(str),
    }
)


def encoded(*columns: str) -> Any:
    """Return a pipeline for a frame: these columns one-hot encoded, others left out."""
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore")
    return pipeline.make_pipeline(
        compose.ColumnTransformer([("c", encoder, list(columns))]), LOGISTIC
    )


def months(frame: Any) -> Any:
    return np.stack([pd.to_datetime(frame["when"]).dt.month, frame["age"]], axis=1)


FRAMES: dict[str, tuple[Any, list[str]]] = {
    "gaps among texts": (encoded("city"), ["age", "city"]),
    "booleans": (encoded("member"), ["member", "age"]),
    "booleans as texts": (encoded("flag"), ["flag"]),
    "categories": (
        ensemble.HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype"),
        ["age", "grade"],
    ),
    "columns by type": (
        pipeline.make_pipeline(
            compose.make_column_transformer(
                (
                    preprocessing.StandardScaler(),
                    compose.make_column_selector(dtype_include=np.number),
                ),
                (
                    preprocessing.OneHotEncoder(handle_unknown="ignore"),
                    compose.make_column_selector(dtype_exclude=np.number),
                ),
            ),
            LOGISTIC,
        ),
        ["age", "flag"],
    ),
    "dates": (
        pipeline.make_pipeline(preprocessing.FunctionTransformer(months), LOGISTIC),
        ["when", "age"],
    ),
    "mean of targets": (
        pipeline.make_pipeline(preprocessing.TargetEncoder(cv=2), LOGISTIC),
        ["flag", "grade"],
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_is_answered_as_in_its_library(tmp_path: Path, name: str) -> None:
    fitted, columns = FRAMES[name]
    frame = FRAME[columns]
    fitted.fit(frame, Y)
    loaded = loaded_from(tmp_path, fitted)
    asked = frame[:6]
    gapless = asked.astype(object).where(asked.notna(), None)
    expected = fitted.predict_proba(asked)
    document = {"instances": gapless.to_dict("records"), "outputs": ["predict_proba"]}
    by_v1 = asking.ask_v1(loaded, document)["predictions"]
    np.testing.assert_allclose(np.array(by_v1), expected)
    datatypes = {"age": "INT64", "member": "BOOL"}
    inputs = [(name, datatypes.get(name, "BYTES"), gapless[name].tolist()) for name in columns]
    by_v2 = asking.ask_v2(loaded, *inputs)["predict_proba"]
    np.testing.assert_allclose(np.array(by_v2, float), expected)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_vectorizer_of_texts_needs_no_declaration(tmp_path: Path, shape: tuple[int, ...]) -> None:
    vectorizers = pipeline.FeatureUnion(
        [
            ("words", feature_extraction.text.TfidfVectorizer()),
            ("letters", feature_extraction.text.HashingVectorizer(n_features=8, analyzer="char")),
        ]
    )
    fitted = pipeline.make_pipeline(vectorizers, LOGISTIC).fit(TEXTS, Y)
    loaded = loaded_from(tmp_path, fitted)
    expected = fitted.predict_proba(TEXTS[:3])
    texts = np.array(TEXTS[:3], object).reshape(shape).tolist()
    answer = asking.ask_v2(loaded, ("any", "BYTES", texts))
    np.testing.assert_allclose(np.array(answer["predict_proba"], float), expected)
    assert asking.predictions(loaded, TEXTS[:3]) == fitted.predict(TEXTS[:3]).tolist()


def test_v1_gives_all_columns_of_a_frame_that_a_transformer_returns(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    fitted = preprocessing.StandardScaler().set_output(transform="pandas").fit(frame)
    loaded = loaded_from(tmp_path, fitted)
    answer = asking.predictions(loaded, X[:2].tolist())
    expected = fitted.transform(frame[:2]).to_dict("records")
    assert answer == [pytest.approx(row) for row in expected]
