from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import runtime_lookup
from tests.runtimes import contract

IRIS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
TREE = "sklearn.tree._tree.Tree"


def saved(folder: Path, fitted: Any, name: str = "model.skops") -> Any:
    path = folder / name
    skops.io.dump(fitted, path) if name.endswith(".skops") else joblib.dump(
        fitted, path, compress=3
    )
    return path


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(IRIS[0], NAMES[IRIS[1]])
    path = saved(tmp_path_factory.mktemp("sklearn"), fitted, "iris.skops")
    rows = IRIS[0][::30]
    labels = np.array([text.encode() for text in fitted.predict(rows)], dtype=object)
    answers = {"predict": labels, "predict_proba": fitted.predict_proba(rows)}
    return contract.Sample("sklearn", path, {"input": rows}, answers, library="sklearn.pipeline")


class TestContract(contract.RuntimeContract):
    """scikit-learn estimators."""


@pytest.mark.edge
def test_broken_files_are_refused(sample: contract.Sample) -> None:
    assert contract.survivors(sample)["refused"] >= 170


@pytest.fixture(scope="module")
def forest() -> Any:
    return RandomForestClassifier(10, random_state=0, n_jobs=2).fit(*IRIS)


def test_types_that_are_not_trusted_are_named_until_someone_trusts_them(
    tmp_path: Path, forest: Any
) -> None:
    path = saved(tmp_path, forest)
    with pytest.raises(errors.LoadFailed, match=TREE):
        contract.load(path)
    for fields in ({"trust": True}, {"options": {"trusted": [TREE]}}):
        loaded = contract.load(path, **fields)
        np.testing.assert_array_equal(
            loaded.predict({"input": IRIS[0]}, ["predict"])["predict"], forest.predict(IRIS[0])
        )


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl"])
def test_pickles_are_code_that_must_be_trusted(tmp_path: Path, forest: Any, name: str) -> None:
    path = saved(tmp_path, forest, name)
    with pytest.raises(errors.LoadFailed, match=r"is code .* set trust: true"):
        contract.load(path)
    loaded = contract.load(path, trust=True)
    np.testing.assert_array_equal(
        loaded.predict({"input": IRIS[0]}, ())["predict_proba"], forest.predict_proba(IRIS[0])
    )


class Exploding:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("unpickled without trust",))


def test_an_untrusted_pickle_is_not_even_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Exploding()))
    with pytest.raises(errors.LoadFailed, match="trust"):
        contract.load(path)


def test_a_pickle_with_a_missing_module_names_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x0bnot_a_thing\x94\x8c\x06Scorer\x94\x93\x94."
    )
    with pytest.raises(
        errors.LoadFailed,
        match="needs a module that is not installed here: No module named 'not_a_thing'",
    ):
        contract.load(path, trust=True)


@pytest.mark.parametrize("what", [{"weights": [1]}, LogisticRegression], ids=["dict", "class"])
def test_a_file_without_an_estimator_is_refused(tmp_path: Path, what: Any) -> None:
    path = saved(tmp_path, what, "model.joblib")
    with pytest.raises(errors.LoadFailed, match="neither predict nor transform"):
        contract.load(path, trust=True)


def test_an_estimator_that_was_never_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.LoadFailed, match="is not fitted yet"):
        contract.load(saved(tmp_path, LogisticRegression()))


@pytest.mark.parametrize("columns", [1, 3, 9])
def test_an_estimator_that_does_not_say_its_columns_is_the_judge_of_them(
    tmp_path: Path, columns: int
) -> None:
    rows = np.random.default_rng(0).random((6, 10))
    # Made-up rows of most widths are refused by it, as by one that was fitted on so many columns.
    estimator = FunctionTransformer(functools.partial(np.dot, b=np.arange(2.0 * columns)[:columns]))
    assert not hasattr(estimator, "n_features_in_")
    loaded = contract.load(saved(tmp_path, estimator, "model.joblib"), trust=True)
    assert not loaded.signature.can_join
    answer = loaded.predict({"input": rows[:, :columns]}, ())
    np.testing.assert_array_equal(answer["transform"], estimator.transform(rows[:, :columns]))
    with pytest.raises(errors.InvalidRequest, match="not aligned"):
        loaded.predict({"input": rows}, ())


def test_a_forest_uses_one_thread_by_default(tmp_path: Path, forest: Any) -> None:
    path = saved(tmp_path, forest, "model.joblib")
    for options, jobs in (({}, 1), ({"n_jobs": 2}, 2)):
        loaded: Any = contract.load(path, trust=True, options=options)
        assert loaded._estimator.functions["predict"].__self__.n_jobs == jobs


def test_a_compressed_forest_gets_a_bigger_hint(tmp_path: Path, forest: Any) -> None:
    packed = contract.artifact(saved(tmp_path, forest, "packed.joblib"))
    joblib.dump(forest, tmp_path / "plain.joblib")
    plain = contract.artifact(tmp_path / "plain.joblib")
    hint = runtime_lookup.by_name("sklearn").footprint_hint
    assert hint(packed, "cpu").host_bytes - (1 << 20) >= 8 * packed.size_bytes
    assert hint(plain, "cpu").host_bytes - (1 << 20) < 8 * plain.size_bytes


def test_without_probabilities_there_is_only_predict(tmp_path: Path) -> None:
    loaded = contract.load(saved(tmp_path, SVC().fit(*IRIS)))
    assert [said.name for said in loaded.signature.outputs] == ["predict"]


def test_several_targets_are_columns(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True)
    fitted = LinearRegression().fit(features, np.stack([target, -target], axis=1))
    loaded = contract.load(saved(tmp_path, fitted))
    assert loaded.signature.outputs == (model.TensorSpec("predict", "FP64", (-1, 2)),)
    np.testing.assert_array_equal(
        loaded.predict({"input": features}, ())["predict"], fitted.predict(features)
    )


@pytest.mark.parametrize(
    "fitted",
    [PCA(2).fit(IRIS[0]), OneHotEncoder(handle_unknown="ignore").fit(IRIS[0][:, :2])],
    ids=["dense", "sparse"],
)
def test_a_transformer_transforms(tmp_path: Path, fitted: Any) -> None:
    loaded = contract.load(saved(tmp_path, fitted, "model.joblib"), trust=True)
    rows = IRIS[0][:, : fitted.n_features_in_]
    expected = fitted.transform(rows)
    np.testing.assert_array_equal(
        loaded.predict({"input": rows}, ())["transform"],
        np.asarray(getattr(expected, "toarray", lambda: expected)()),
    )


def test_the_input_of_texts_may_be_declared(tmp_path: Path) -> None:
    texts, labels = ["good film", "bad film", "good play", "bad play"], [1, 0, 1, 0]
    fitted = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(texts, labels)
    path = saved(tmp_path, fitted, "model.joblib")
    loaded = contract.load(path, trust=True, inputs=(model.TensorSpec("text", "BYTES", (-1,)),))
    assert loaded.predict({"text": np.array([b"good", b"bad"], dtype=object)}, ["predict"])[
        "predict"
    ].tolist() == [1, 0]


def test_values_that_the_estimator_refuses_are_the_caller_s_fault(
    loaded: model_runtime.LoadedModel,
) -> None:
    with pytest.raises(errors.InvalidRequest, match="contains NaN"):
        loaded.predict({"input": np.full((1, 4), np.nan)}, ())


def test_a_pipeline_fitted_with_column_names_takes_plain_rows(tmp_path: Path) -> None:
    fitted = LogisticRegression(max_iter=500).fit(*IRIS)
    fitted.feature_names_in_ = np.array(["a", "b", "c", "d"], dtype=object)
    loaded = contract.load(saved(tmp_path, fitted))
    assert loaded.predict({"input": IRIS[0][:2]}, ["predict"])["predict"].shape == (2,)


def test_steps_that_write_to_their_rows_get_rows_of_their_own(tmp_path: Path) -> None:
    fitted = make_pipeline(StandardScaler(copy=False), LogisticRegression()).fit(
        IRIS[0].copy(), IRIS[1]
    )
    loaded = contract.load(saved(tmp_path, fitted))
    rows = IRIS[0][::30].copy()
    expected = fitted.predict(rows.copy())
    rows.flags.writeable = False
    np.testing.assert_array_equal(loaded.predict({"input": rows}, ())["predict"], expected)


def test_a_class_of_the_training_script_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02c__main__\nAddRatio\nq\x00.")
    with pytest.raises(
        errors.LoadFailed, match=r"needs 'AddRatio' of the script .* in a module that is installed"
    ):
        contract.load(path, trust=True)


def test_names_and_datatypes_may_be_declared(sample: contract.Sample) -> None:
    inputs, outputs = (
        (model.TensorSpec("X", "FP32", (-1, 4)),),
        (model.TensorSpec("label", "BYTES", (-1,)), model.TensorSpec("p", "FP64", (-1, 3))),
    )
    loaded = sample.load(inputs=inputs, outputs=outputs)
    assert loaded.signature.inputs == inputs
    assert loaded.signature.outputs == outputs
    given = loaded.predict({"X": sample.rows["input"].astype(np.float32)}, ["p"])
    np.testing.assert_allclose(given["p"], sample.answers["predict_proba"], atol=1e-4)


FRAME = pd.DataFrame({"age": [20, 30, 40, 50], "city": ["a", "b", "a", "b"]})
WORDS = ColumnTransformer(
    [("t", TfidfVectorizer(token_pattern="."), "city"), ("s", "passthrough", ["age"])]
)
CITIES = ColumnTransformer([("o", OneHotEncoder(), ["city"]), ("s", StandardScaler(), ["age"])])


@pytest.mark.parametrize("encoder", [WORDS, CITIES], ids=["words", "categories"])
def test_a_column_with_values_of_another_kind_is_named(tmp_path: Path, encoder: Any) -> None:
    fitted = make_pipeline(encoder, LogisticRegression()).fit(FRAME, [0, 1, 1, 0])
    loaded = contract.load(saved(tmp_path, fitted, "model.joblib"), trust=True)
    ages, cities = np.array([20, 50]), np.array([b"a", b"b"], object)
    answer = loaded.predict({"age": ages, "city": cities}, ())["predict_proba"]
    np.testing.assert_array_equal(answer, fitted.predict_proba(FRAME.iloc[[0, 3]]))
    with pytest.raises(errors.InvalidRequest, match="column 'age' takes numbers, BYTES came: "):
        loaded.predict({"age": cities, "city": cities}, ())
    with pytest.raises(errors.InvalidRequest, match="column 'city' takes texts, INT64 came: "):
        loaded.predict({"age": ages, "city": ages}, ())
    with pytest.raises(errors.InvalidRequest, match=r"column 'city' has a gap \(null\)"):
        loaded.predict({"age": ages, "city": np.array([b"a", None], object)}, ())
