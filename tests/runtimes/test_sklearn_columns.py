from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import NMF, PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 it makes the next import work
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.runtimes import sklearn_columns
from tests.runtimes import asking, contract

IRIS = load_iris(return_X_y=True)
FRAME = load_iris(as_frame=True).data
CITIES = pd.DataFrame({"city": ["oslo", "rome", "oslo", "lima"] * 8, "age": list(range(32))})
LABELS = [0, 1, 0, 1] * 8
RIDES = pd.DataFrame(
    {"km": [1.0, 2.5, 3.0, None] * 8, "text": ["good", "bad", "good ride", "no"] * 8}
)


def load(folder: Path, fitted: Any, **fields: Any) -> model_runtime.LoadedModel:
    joblib.dump(fitted, folder / "model.joblib")
    return contract.load(folder, trust=True, **fields)


def by_name() -> Any:
    columns = [("c", OneHotEncoder(), ["city"]), ("n", StandardScaler(), ["age"])]
    return make_pipeline(ColumnTransformer(columns), LogisticRegression()).fit(CITIES, LABELS)


def test_columns_that_are_selected_by_name_come_by_name(tmp_path: Path) -> None:
    pipeline = by_name()
    loaded = load(tmp_path, pipeline)
    expected = pipeline.predict(CITIES.iloc[[1, 6]]).tolist()
    rows = [{"city": "rome", "age": 1}, {"age": 6, "city": "oslo"}]
    assert asking.predictions(loaded, rows) == expected
    assert asking.predictions(loaded, [["rome", 1], ["oslo", 6]]) == expected
    columns = {"age": [1, 6], "city": ["rome", "oslo"]}
    assert asking.ask_v1(loaded, {"inputs": columns}) == {"outputs": expected}
    for ages in ("INT64", "FP32", "INT8"):
        came = ("age", ages, [1, 6]), ("city", "BYTES", ["rome", "oslo"])
        assert asking.ask_v2(loaded, *came, outputs=("predict",)) == {"predict": expected}
    shaped = ("age", "INT64", [[1], [6]]), ("city", "BYTES", [["rome"], ["oslo"]])
    assert asking.ask_v2(loaded, *shaped)["predict"] == expected
    assert loaded.signature.can_join


def test_columns_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    loaded = load(tmp_path, by_name())
    for rows, reason in [
        ([{"city": "oslo"}], "instance 0: the columns 'age' are missing"),
        ([{"city": "oslo", "age": 1, "b": 1}], "the model has no column 'b'"),
        ([{"city": "oslo", "agee": 1}], r"'agee' \(is 'age' meant\?\)"),
    ]:
        with pytest.raises(errors.InvalidRequest, match=reason):
            asking.predictions(loaded, rows)
    with pytest.raises(errors.InvalidRequest, match="the columns 'age' are missing"):
        asking.ask_v2(loaded, ("city", "BYTES", ["oslo"]))
    with pytest.raises(errors.InvalidRequest, match="column 'age' has 1 rows"):
        asking.ask_v2(loaded, ("city", "BYTES", ["oslo", "rome"]), ("age", "INT64", [1]))


def test_a_value_that_no_encoder_has_seen_is_the_caller_s_fault(tmp_path: Path) -> None:
    loaded = load(tmp_path, by_name())
    with pytest.raises(errors.InvalidRequest, match="unknown categories"):
        asking.predictions(loaded, [{"city": "bonn", "age": 1}])


@pytest.mark.timeout(
    90
)  # boosting spreads over all cores, which on a busy machine wait for each other
def test_texts_numbers_and_gaps_stand_in_one_frame(tmp_path: Path) -> None:
    columns = [("t", TfidfVectorizer(), "text"), ("n", "passthrough", ["km"])]
    steps = ColumnTransformer(columns), HistGradientBoostingRegressor(min_samples_leaf=1)
    dense = FunctionTransformer(np.asarray)
    columns[0] = ("t", make_pipeline(TfidfVectorizer(), FunctionTransformer(_dense)), "text")
    pipeline = make_pipeline(ColumnTransformer(columns), dense, steps[1]).fit(RIDES, range(32))
    loaded = load(tmp_path, pipeline)
    rows = [{"km": None, "text": "good"}, {"km": 2.5, "text": "no"}]
    expected = pipeline.predict(pd.DataFrame(rows))
    np.testing.assert_allclose(asking.predictions(loaded, rows), expected)


GAPPY: list[Any] = ["oslo", "rome", None, "lima"] * 8


@pytest.mark.parametrize(
    "encoder",
    [OneHotEncoder(handle_unknown="ignore"), TargetEncoder(cv=2)],
    ids=["one-hot", "target"],
)
@pytest.mark.parametrize(
    ("datatype", "gap"),
    [(object, None), (object, np.nan), ("str", None)],
    ids=["None", "NaN", "str"],
)
def test_a_missing_text_is_what_it_was_in_training_whatever_rows_are_beside_it(
    tmp_path: Path, encoder: Any, datatype: Any, gap: Any
) -> None:
    def frame(cities: list[Any]) -> pd.DataFrame:
        column = pd.Series([gap if city is None else city for city in cities], dtype=datatype)
        return pd.DataFrame({"city": column, "age": list(range(len(cities)))})

    columns = ColumnTransformer([("c", encoder, ["city"]), ("n", "passthrough", ["age"])])
    fitted = make_pipeline(columns, LinearRegression())
    fitted.fit(frame(GAPPY), [5.0 if city is None else 1.0 for city in GAPPY])
    loaded = load(tmp_path, fitted)
    for cities in ([None], [None, None], ["oslo", None], ["??", None, "oslo"]):
        rows = [{"city": city, "age": place} for place, city in enumerate(cities)]
        np.testing.assert_allclose(
            asking.predictions(loaded, rows), fitted.predict(frame(cities)), rtol=1e-6
        )


def _dense(sparse: Any) -> np.ndarray:
    return np.asarray(sparse.todense())


@pytest.mark.parametrize("encoder", [OneHotEncoder(sparse_output=False), OrdinalEncoder()])
@pytest.mark.parametrize(
    "rows",
    [
        [["a", "x"], ["b", "y"], ["a", "y"]],
        [[0, 0], [7, 1], [3, 5]],
        [["a", 5], ["b", 6], ["b", 5]],
    ],
    ids=["texts", "numbers", "both"],
)
def test_an_encoder_that_refuses_unseen_values_loads(
    tmp_path: Path, encoder: Any, rows: list[list[Any]]
) -> None:
    fitted = encoder.fit(np.array(rows, dtype=object if isinstance(rows[0][0], str) else None))
    loaded = load(tmp_path, fitted)
    expected = fitted.transform(np.array(rows, dtype=object))
    assert asking.predictions(loaded, rows) == expected.tolist()
    with pytest.raises(errors.InvalidRequest, match="unknown categories"):
        asking.predictions(loaded, [["zz" if isinstance(cell, str) else 77 for cell in rows[0]]])


def test_histograms_take_the_categories_of_their_frame(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.linspace(0, 1, 90), "c": pd.Categorical(list("abc") * 30)})
    fitted = HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=9)
    fitted.fit(frame, np.arange(90) % 3)
    loaded = load(tmp_path, fitted)
    rows = [[0.1, "a"], [0.2, "b"], [0.3, "c"], [0.4, "unseen"]]
    asked = pd.DataFrame(rows, columns=["x", "c"])
    np.testing.assert_allclose(asking.predictions(loaded, rows), fitted.predict(asked))


def test_a_frame_of_numbers_takes_names_and_plain_rows(tmp_path: Path) -> None:
    fitted = LogisticRegression(max_iter=500).fit(FRAME, IRIS[1])
    loaded = load(tmp_path, fitted)
    rows = FRAME.iloc[[3, 77, 140]]
    expected = fitted.predict(rows).tolist()
    dicts = rows.to_dict("records")
    assert asking.predictions(loaded, rows.to_numpy().tolist()) == expected
    assert asking.predictions(loaded, [dict(reversed(row.items())) for row in dicts]) == expected
    frames = [{name: {"0": value} for name, value in row.items()} for row in dicts]
    assert asking.ask_v1(loaded, {"inputs": frames}) == {"predictions": expected}
    assert asking.ask_v1(loaded, {"inputs": rows.to_dict("list")}) == {"outputs": expected}
    columns = [(name, "FP32", rows[name].tolist()) for name in reversed(rows.columns)]
    assert asking.ask_v2(loaded, *columns)["predict"] == expected


@pytest.mark.parametrize(
    "datatype",
    ["FP64", "FP32", "INT64", "INT32", "INT16", "INT8", "UINT8", "UINT16", "UINT32", "UINT64"],
)
@pytest.mark.parametrize("name", ["input-0", "predict", "input"])
def test_a_matrix_without_a_name_takes_any(tmp_path: Path, name: str, datatype: str) -> None:
    fitted = LogisticRegression(max_iter=500).fit(*IRIS)
    loaded = load(tmp_path, fitted)
    rows = IRIS[0][::40].round() if "INT" in datatype else IRIS[0][::40]
    values = rows.astype(int).tolist() if "INT" in datatype else rows.tolist()
    answer = asking.ask_v2(loaded, (name, datatype, values), outputs=("predict",))
    assert answer == {"predict": fitted.predict(rows).tolist()}


def test_a_classifier_answers_v1_with_labels(tmp_path: Path) -> None:
    fitted = LogisticRegression(max_iter=500).fit(*IRIS)
    loaded = load(tmp_path, fitted)
    rows = IRIS[0][::40].tolist()
    assert asking.predictions(loaded, rows) == fitted.predict(rows).tolist()
    answer = asking.ask_v1(loaded, {"instances": rows, "outputs": ["predict", "predict_proba"]})
    np.testing.assert_allclose(
        [row["predict_proba"] for row in answer["predictions"]], fitted.predict_proba(rows)
    )


TARGETS = np.stack([IRIS[1], IRIS[1] == 2, IRIS[0][:, 0] > 5.8], axis=1).astype(int)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "estimator",
    [MultiOutputClassifier(LogisticRegression(max_iter=500)), RandomForestClassifier(5)],
    ids=["wrapped", "forest"],
)
def test_targets_of_one_kind_have_rows_first(tmp_path: Path, estimator: Any, count: int) -> None:
    fitted = estimator.fit(IRIS[0], TARGETS[:, 1:])
    loaded = load(tmp_path, fitted)
    rows = IRIS[0][40 : 40 + 20 * count : 20]
    answer = asking.ask_v1(
        loaded, {"instances": rows.tolist(), "outputs": ["predict", "predict_proba"]}
    )
    expected = np.stack(fitted.predict_proba(rows), axis=1)
    assert [row["predict"] for row in answer["predictions"]] == fitted.predict(rows).tolist()
    np.testing.assert_allclose([row["predict_proba"] for row in answer["predictions"]], expected)


def test_targets_of_different_kinds_are_outputs_of_their_own(tmp_path: Path) -> None:
    fitted = MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(IRIS[0], TARGETS)
    loaded = load(tmp_path, fitted)
    rows = IRIS[0][::50]
    assert asking.predictions(loaded, rows.tolist()) == fitted.predict(rows).tolist()
    answer = asking.ask_v2(loaded, ("x", "FP64", rows.tolist()))
    for place, expected in enumerate(fitted.predict_proba(rows)):
        np.testing.assert_allclose(
            np.array(answer[f"predict_proba_{place}"], dtype=float), expected
        )


def test_a_frame_is_answered_column_by_column(tmp_path: Path) -> None:
    loaded = load(tmp_path, FunctionTransformer(label_and_total).fit(FRAME))
    answer = asking.ask_v2(loaded, ("x", "FP64", FRAME.iloc[:2].to_numpy().tolist()))
    expected = label_and_total(FRAME.iloc[:2])
    assert answer == {name: expected[name].tolist() for name in expected}
    assert not loaded.signature.can_join


def label_and_total(frame: Any) -> pd.DataFrame:
    total = np.asarray(frame).sum(axis=1)
    return pd.DataFrame({"label": np.where(total > 10, "big", "small"), "total": total})


@pytest.mark.parametrize(
    ("fitted", "expected"),
    [
        (LogisticRegression(), True),
        (make_pipeline(StandardScaler(), PCA(2)).fit(IRIS[0]), True),
        (make_pipeline(FunctionTransformer(np.log1p), PCA(2)).fit(IRIS[0]), True),
        (make_pipeline(FunctionTransformer(label_and_total), PCA(2)), False),
        (NMF(2), False),
        (IterativeImputer(), False),
        (KNeighborsRegressor(weights=label_and_total), False),
        (KNeighborsRegressor(weights="distance").fit(*IRIS), True),
        (SelectKBest(f_classif, k=2).fit(*IRIS), True),
        (GridSearchCV(LinearRegression(), {"positive": [True]}, cv=2).fit(*IRIS), True),
        (DummyClassifier(strategy="uniform").fit(*IRIS), False),
        (DummyClassifier().fit(*IRIS), True),
    ],
    ids=[
        *("logistic", "pipeline", "ufunc", "function", "solver", "imputer", "own weights"),
        *("weights", "score", "search", "drawn", "constant"),
    ],
)
def test_only_rows_of_known_kinds_are_independent(fitted: Any, expected: bool) -> None:
    assert sklearn_columns.are_rows_independent(fitted) is expected


def test_own_functions_get_the_frame_that_they_were_fitted_on(tmp_path: Path) -> None:
    pipeline = make_pipeline(FunctionTransformer(petal_area), LinearRegression())
    loaded = load(tmp_path, pipeline.fit(FRAME, IRIS[1]))
    rows = FRAME.iloc[::50]
    expected = pipeline.predict(rows)
    np.testing.assert_allclose(asking.predictions(loaded, rows.to_dict("records")), expected)
    np.testing.assert_allclose(asking.predictions(loaded, rows.to_numpy().tolist()), expected)
    assert not loaded.signature.can_join


def petal_area(frame: Any) -> pd.DataFrame:
    area = frame["petal length (cm)"] * frame["petal width (cm)"]
    return pd.DataFrame({"area": area})


class Ratio(LinearRegression):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator of a user, which may do anything."""


def test_a_user_s_own_class_is_not_known_to_keep_rows_apart() -> None:
    assert not sklearn_columns.are_rows_independent(make_pipeline(StandardScaler(), Ratio()))


class Boosted:
    """What CatBoost's pickled models are like: no number of columns, and no change of settings."""

    n_features_in_ = 0

    def __init__(self, names: list[str], categorical: list[int]) -> None:
        self.feature_names_ = names
        self.categorical = categorical

    def get_cat_feature_indices(self) -> list[int]:
        return self.categorical


@pytest.mark.parametrize(
    ("names", "known", "categorical"),
    [(["0", "1"], (), []), (["city", "age"], ("city", "age"), [0])],
)
def test_columns_of_catboost_are_known_by_their_names(
    names: list[str], known: tuple[str, ...], categorical: list[int]
) -> None:
    fitted = Boosted(names, categorical)
    assert sklearn_columns.count(fitted) == 2
    assert sklearn_columns.feature_names(fitted) == known
    assert sklearn_columns.describe(fitted, 2).texts == set(categorical)
