from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
import xgboost
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import booster_categories, runtime_lookup, xgboost_texts
from meshserve.testing import runtime_suite


def train(categories: list[str]) -> Any:
    """Return a regressor that predicts nearly 10 times the code of its one column."""
    cells = pd.Categorical(np.repeat(categories, 20), categories=categories)
    return xgboost.XGBRegressor(
        n_estimators=20, learning_rate=0.9, enable_categorical=True, min_child_weight=0
    ).fit(pd.DataFrame({"city": cells}), np.repeat(np.arange(len(categories)) * 10.0, 20))


def load(folder: Path, fitted: Any) -> model_runtime.LoadedModel:
    fitted.save_model(folder / "model.ubj")
    artifact = runtime_suite.artifact_at(folder / "model.ubj")
    runtime = runtime_lookup.by_name("xgboost")
    return runtime.load(artifact, model.ModelSpec(model.ModelId("m"), ""), "cpu")


def codes(fitted: Any, texts: list[str]) -> Any:
    learner = orjson.loads(bytes(fitted.get_booster().save_raw("json")))["learner"]
    kept = booster_categories.of_xgboost(learner)
    assert kept is not None
    cells = np.array([text.encode() for text in texts], dtype=object)
    return kept.codes[0].encode(cells).tolist()


@pytest.mark.parametrize(
    "categories",
    [
        ["oslo", "rome", "København"],
        ["København", "oslo", "rome"],
        ["Köln", "Köping", "Zürich"],
        ["de", "fr", "ça", "über"],
        ["Ålesund", "Ørsta", "bergen", "trondheim"],
    ],
)
def test_texts_of_any_alphabet_have_the_codes_of_the_training_frame(
    tmp_path: Path, categories: list[str]
) -> None:
    fitted = train(categories)
    expected = fitted.predict(
        pd.DataFrame({"city": pd.Categorical(categories, categories=categories)})
    )
    assert codes(fitted, categories) == [*range(len(categories))]
    cells = np.array([text.encode() for text in categories], dtype=object)
    [answer] = load(tmp_path, fitted).predict({"city": cells}, ()).values()
    np.testing.assert_allclose(answer, expected, rtol=1e-6)


def test_texts_that_the_file_has_lost_are_refused() -> None:
    fitted = train(["москва", "омск", "тверь"])
    assert codes(fitted, ["москва"]) == [0]
    for text in ("омск", "тверь", "орёл", "мос"):
        with pytest.raises(errors.InvalidRequest, match=f"not '{text}'"):
            codes(fitted, [text])


@pytest.mark.parametrize("categories", [["ж", "м"], ["да", "нет"]])
def test_a_lost_text_is_not_taken_for_the_first_one(categories: list[str]) -> None:
    fitted = train(categories)
    assert codes(fitted, categories[:1]) == [0]
    with pytest.raises(errors.InvalidRequest):
        codes(fitted, categories[1:])


def test_a_column_without_a_certain_text_is_refused() -> None:
    with pytest.raises(errors.LoadFailed, match="too little of the categories of column 'city'"):
        codes(train(["女", "男"]), [])


@pytest.mark.parametrize("text", ["ö", "女", "Ж" * 5])
def test_the_example_of_a_cut_text_has_its_code(text: str) -> None:
    kept = xgboost_texts.KeptTexts(text.encode()[: len(text)], [0, len(text)])
    assert kept.find_code(text) == kept.find_code(kept.example()) == 0


def test_one_letter_is_not_taken_for_another() -> None:
    fitted = train(["а", "б", "в", "г"])
    assert codes(fitted, ["а", "б"]) == [0, 1]
    for text in "вг":
        with pytest.raises(errors.InvalidRequest):
            codes(fitted, [text])


def test_a_text_that_two_cut_ones_can_be_is_refused() -> None:
    fitted = train(["aöéöbb", "é", "éa", "ö"])
    for text in "éö":
        with pytest.raises(errors.InvalidRequest):
            codes(fitted, [text])


@pytest.mark.parametrize("text", ["rome", "nowhere"])
def test_a_booster_inside_a_pipeline_refuses_what_a_frame_takes_for_a_gap(
    tmp_path: Path, text: str
) -> None:
    known = ["København", "oslo", "rome"]
    cells = pd.Categorical(np.repeat(known, 20), categories=known)
    frame = pd.DataFrame({"city": cells, "size": np.arange(60.0)})
    booster = xgboost.XGBRegressor(n_estimators=5, enable_categorical=True, min_child_weight=0)
    fitted = make_pipeline(FunctionTransformer(), booster).fit(frame, np.arange(60.0))
    joblib.dump(fitted, tmp_path / "model.joblib")
    spec = model.ModelSpec(model.ModelId("m"), "", trust=True)
    artifact = runtime_suite.artifact_at(tmp_path / "model.joblib")
    loaded = runtime_lookup.by_name("sklearn").load(artifact, spec, "cpu")

    def ask(city: str) -> np.ndarray:
        column = np.array([city.encode()], dtype=object)
        return loaded.predict({"city": column, "size": np.array([30.0])}, ())["predict"]

    row = frame.iloc[[30]]
    np.testing.assert_allclose(ask("oslo"), fitted.predict(row), rtol=1e-6)
    with pytest.raises(errors.InvalidRequest, match=f"not '{text}'"):
        ask(text)


def kept_by_arrow(*texts: str) -> xgboost_texts.KeptTexts:
    raw = [text.encode() for text in texts]
    return xgboost_texts.KeptTexts(b"".join(raw), np.cumsum([0, *map(len, raw)]).tolist())


def test_offsets_that_count_bytes_are_read_too() -> None:
    texts = ("москва", "омск", "Köln", "x")
    assert [*map(kept_by_arrow(*texts).find_code, texts)] == [0, 1, 2, 3]


def test_a_text_that_has_two_codes_by_the_two_readings_is_refused() -> None:
    # pandas' ["éa", "ba", "ab"] is Arrow's ["é", "ab", "aa"].
    kept = xgboost_texts.KeptTexts("éabaab".encode()[:6], [0, 2, 4, 6])
    assert [*map(kept.find_code, ("éa", "ba", "é", "ab", 1))] == [0, 1, 0, None, None]
