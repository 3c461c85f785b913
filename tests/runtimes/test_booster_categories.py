from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import VotingRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from tests.runtimes import asking, contract

COUNT = 400
CHANCE = np.random.default_rng(7)
NUMBERS = CHANCE.choice([10, 20, 30], COUNT)
TEXTS = CHANCE.choice(["a", "b", "ö"], COUNT)
TARGET = NUMBERS * 0.5 + (TEXTS == "b") * 4.0
FRAMES = {
    "numbers": pd.DataFrame({"x": CHANCE.random(COUNT), "c": pd.Categorical(NUMBERS)}),
    "texts": pd.DataFrame(
        {
            "x": CHANCE.random(COUNT),
            "c": pd.Categorical(NUMBERS),
            "t": pd.Categorical(TEXTS),
        }
    ),
}
ROWS: dict[str, list[list[Any]]] = {
    "numbers": [[0.1, 10], [0.2, 20], [0.3, 30], [None, None]],
    "texts": [[0.1, 10, "a"], [0.2, 20, "b"], [0.3, 30, "ö"], [0.3, 30, None]],
}


def frame_of(kind: str, rows: list[list[Any]]) -> pd.DataFrame:
    """The rows as a frame with the training frame's categories."""
    asked = pd.DataFrame(rows, columns=FRAMES[kind].columns)
    for name, cells in FRAMES[kind].items():
        if isinstance(cells.dtype, pd.CategoricalDtype):
            asked[name] = pd.Categorical(asked[name], categories=cells.cat.categories)
        else:
            asked[name] = asked[name].astype(float)
    return asked


def train_lightgbm(folder: Path, kind: str) -> tuple[Path, Any, dict[str, Any]]:
    fitted = lightgbm.train(
        {"verbose": -1, "min_data_in_leaf": 5, "num_threads": 1},
        lightgbm.Dataset(FRAMES[kind], TARGET),
        20,
    )
    fitted.save_model(folder / "model.bst")
    return folder, fitted, {}


def train_xgboost(folder: Path, kind: str) -> tuple[Path, Any, dict[str, Any]]:
    fitted = xgboost.XGBRegressor(enable_categorical=True, n_estimators=20, n_jobs=1)
    fitted.fit(FRAMES[kind], TARGET).save_model(folder / "model.ubj")
    return folder, fitted, {}


def train_xgboost_json(folder: Path, kind: str) -> tuple[Path, Any, dict[str, Any]]:
    fitted = xgboost.XGBRegressor(enable_categorical=True, n_estimators=20, n_jobs=1)
    fitted.fit(FRAMES[kind], TARGET).save_model(folder / "model.json")
    return folder, fitted, {}


def dumped(folder: Path, fitted: Any) -> tuple[Path, Any, dict[str, Any]]:
    joblib.dump(fitted, folder / "model.joblib")
    return folder, fitted, {"trust": True}


LGBM: dict[str, Any] = {"n_estimators": 20, "verbose": -1, "min_child_samples": 5, "n_jobs": 1}


def train_lgbm_estimator(folder: Path, kind: str) -> tuple[Path, Any, dict[str, Any]]:
    return dumped(folder, lightgbm.LGBMRegressor(**LGBM).fit(FRAMES[kind], TARGET))


def train_xgb_estimator(folder: Path, kind: str) -> tuple[Path, Any, dict[str, Any]]:
    fitted = xgboost.XGBRegressor(enable_categorical=True, n_estimators=20, n_jobs=1)
    return dumped(folder, fitted.fit(FRAMES[kind], TARGET))


def train_pipeline(folder: Path, kind: str) -> tuple[Path, Any, dict[str, Any]]:
    steps = [("none", "passthrough"), ("model", lightgbm.LGBMRegressor(**LGBM))]
    return dumped(folder, Pipeline(steps).fit(FRAMES[kind], TARGET))


def train_search(folder: Path, kind: str) -> tuple[Path, Any, dict[str, Any]]:
    search = GridSearchCV(lightgbm.LGBMRegressor(**LGBM), {"num_leaves": [7]}, cv=2)
    return dumped(folder, search.fit(FRAMES[kind], TARGET))


def train_voting(folder: Path, kind: str) -> tuple[Path, Any, dict[str, Any]]:
    voting = VotingRegressor([("one", lightgbm.LGBMRegressor(**LGBM))])
    return dumped(folder, voting.fit(FRAMES[kind], TARGET))


TRAININGS = [
    train_lightgbm,
    train_xgboost,
    train_xgboost_json,
    train_lgbm_estimator,
    train_xgb_estimator,
    train_pipeline,
    train_search,
    train_voting,
]


@pytest.mark.parametrize("kind", ["numbers", "texts"])
@pytest.mark.parametrize("train", TRAININGS)
def test_raw_values_are_the_categories_of_the_training_frame(
    tmp_path: Path, train: Any, kind: str
) -> None:
    path, fitted, fields = train(tmp_path, kind)
    loaded = contract.load(path, **fields)
    rows = ROWS[kind]
    expected = fitted.predict(frame_of(kind, rows))
    np.testing.assert_allclose(asking.predictions(loaded, rows), expected, rtol=1e-6)
    names = list(FRAMES[kind].columns)
    dicts = [dict(zip(names, row, strict=True)) for row in rows]
    np.testing.assert_allclose(asking.predictions(loaded, dicts), expected, rtol=1e-6)
    reordered = [dict(reversed(row.items())) for row in dicts]
    np.testing.assert_allclose(asking.predictions(loaded, reordered), expected, rtol=1e-6)
    columns = [
        (name, "BYTES" if name == "t" else "FP64", [row[place] for row in rows[:3]])
        for place, name in enumerate(names)
    ]
    answer = asking.ask_v2(loaded, *columns)
    np.testing.assert_allclose(answer["predict"], expected[:3], rtol=1e-6)


@pytest.mark.parametrize("train", [train_lightgbm, train_lgbm_estimator, train_pipeline])
@pytest.mark.parametrize(("kind", "row"), [("numbers", [0.5, 99]), ("texts", [0.5, 99, "zz"])])
def test_lightgbm_takes_an_unknown_category_for_a_missing_value(
    tmp_path: Path, train: Any, kind: str, row: list[Any]
) -> None:
    path, fitted, fields = train(tmp_path, kind)
    unknown = pd.DataFrame([row], columns=FRAMES[kind].columns)
    for name in unknown.columns[1:]:
        unknown[name] = pd.Categorical(unknown[name])
    expected = fitted.predict(unknown)
    np.testing.assert_allclose(
        asking.predictions(contract.load(path, **fields), [row]), expected, rtol=1e-6
    )


@pytest.mark.parametrize("train", [train_xgboost, train_xgb_estimator])
def test_xgboost_refuses_an_unknown_category(tmp_path: Path, train: Any) -> None:
    path, fitted, fields = train(tmp_path, "texts")
    with pytest.raises(Exception, match="not in the training set"):
        fitted.predict(
            pd.DataFrame({"x": [0.5], "c": pd.Categorical([10]), "t": pd.Categorical(["zz"])})
        )
    with pytest.raises(errors.InvalidRequest, match=r"column 't' takes its categories .*'zz'"):
        asking.predictions(contract.load(path, **fields), [[0.5, 10, "zz"]])


def test_a_code_in_place_of_a_text_is_refused(tmp_path: Path) -> None:
    path, _, fields = train_lightgbm(tmp_path, "texts")
    loaded = contract.load(path, **fields)
    with pytest.raises(errors.InvalidRequest, match=r"column 't' takes its categories .*, not 1"):
        asking.predictions(loaded, [[0.5, 10, 1]])


def ordered(folder: Path) -> tuple[pd.DataFrame, Any]:
    frame = FRAMES["texts"].assign(o=pd.Categorical(CHANCE.choice([5, 6, 7], COUNT), ordered=True))
    fitted = lightgbm.train(
        {"verbose": -1, "num_threads": 1}, lightgbm.Dataset(frame, TARGET + frame.o.astype(int)), 9
    )
    fitted.save_model(folder / "model.txt")
    return frame, fitted


def test_categories_without_a_clear_column_are_refused_until_it_is_named(tmp_path: Path) -> None:
    frame, fitted = ordered(tmp_path)
    with pytest.raises(errors.LoadFailed, match=r"options: \{categorical_columns: \[…\]\}"):
        contract.load(tmp_path)
    loaded: model_runtime.LoadedModel = contract.load(
        tmp_path, options={"categorical_columns": ["c", "t", "o"]}
    )
    rows = [[0.5, 10, "a", 7], [0.5, 30, "b", 5]]
    asked = pd.DataFrame(rows, columns=frame.columns)
    for name in "cto":
        asked[name] = pd.Categorical(asked[name], categories=frame[name].cat.categories)
    np.testing.assert_allclose(asking.predictions(loaded, rows), fitted.predict(asked))
    with pytest.raises(errors.LoadFailed, match="no column 'z'"):
        contract.load(tmp_path, options={"categorical_columns": ["c", "t", "z"]})


def test_a_file_that_is_damaged_in_its_last_line_is_refused_by_its_name(tmp_path: Path) -> None:
    train_lightgbm(tmp_path, "texts")
    file = tmp_path / "model.bst"
    whole = file.read_bytes().rstrip()
    before, line, _ = whole.rpartition(b"pandas_categorical:")
    for damaged in (whole[:-3], before + line + b"1", before + line + b"[[1], 2]"):
        file.write_bytes(damaged)
        with pytest.raises(errors.LoadFailed, match="pandas_categorical of the model's file is"):
            contract.load(tmp_path)
