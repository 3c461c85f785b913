from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import xgboost as xgboost_runtime
from tests.runtimes import contract

CANCER = load_breast_cancer(return_X_y=True)
IRIS = load_iris(return_X_y=True)


@functools.cache
def trained(rounds: Any = 5, **parameters: Any) -> Any:
    parameters = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, **parameters}
    return xgboost.train(parameters, xgboost.DMatrix(*CANCER), rounds)


@pytest.fixture(scope="module", params=["json", "ubj"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("xgboost") / f"cancer.{request.param}"
    trained().save_model(path)
    rows = CANCER[0][:6].astype(np.float32)
    answers = {"predict": trained().predict(xgboost.DMatrix(rows))}
    return contract.Sample("xgboost", path, {"input": rows}, answers, library="xgboost")


class TestContract(contract.RuntimeContract):
    """XGBoost boosters."""


@pytest.mark.edge
def test_broken_files_are_refused(sample: contract.Sample) -> None:
    assert contract.survivors(sample)["refused"] >= 150


def test_missing_values_are_values(loaded: model_runtime.LoadedModel) -> None:
    rows = CANCER[0][:4].astype(np.float32)
    rows[:, ::2] = np.nan
    np.testing.assert_array_equal(
        loaded.predict({"input": rows}, ())["predict"], trained().predict(xgboost.DMatrix(rows))
    )


def test_double_precision_may_be_declared(sample: contract.Sample) -> None:
    loaded = sample.load(inputs=(model.TensorSpec("features", "FP64", (-1, 30)),))
    given = loaded.predict({"features": CANCER[0][:6]}, ())["predict"]
    np.testing.assert_array_equal(given, trained().predict(xgboost.DMatrix(CANCER[0][:6])))


def test_integers_may_be_declared(sample: contract.Sample) -> None:
    loaded = sample.load(inputs=(model.TensorSpec("features", "INT64", (-1, 30)),))
    rows = CANCER[0][:6].astype(np.int64)
    np.testing.assert_array_equal(
        loaded.predict({"features": rows}, ())["predict"],
        trained().predict(xgboost.DMatrix(rows)),
    )


@pytest.mark.parametrize("ending", ["json", "ubj", "bst"])
@pytest.mark.parametrize("kind", ["regression", "binary", "classes"])
def test_leaves_with_a_weight_for_each_output_answer_as_they_do(
    tmp_path: Path, kind: str, ending: str
) -> None:
    options = {"multi_strategy": "multi_output_tree", "tree_method": "hist", "n_estimators": 5}
    features, labels = IRIS
    if kind == "regression":
        targets = np.stack([features[:, 0], features[:, 1] * 2], axis=1)
        fitted = xgboost.XGBRegressor(**options, n_jobs=1).fit(features, targets)
    elif kind == "binary":
        targets = np.stack([labels == 1, labels == 2], axis=1).astype(int)
        fitted = xgboost.XGBClassifier(**options, n_jobs=1).fit(features, targets)
    else:
        fitted = xgboost.XGBClassifier(**options, n_jobs=1).fit(features, labels)
    path = tmp_path / f"model.{ending}"
    fitted.save_model(path)
    rows = features.astype(np.float32)
    expected = fitted.get_booster().inplace_predict(rows)
    loaded = contract.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict({"input": rows}, ())["predict"], expected)


def test_a_leaf_without_weights_is_refused(tmp_path: Path) -> None:
    options = {"multi_strategy": "multi_output_tree", "tree_method": "hist", "n_estimators": 1}
    fitted = xgboost.XGBRegressor(**options).fit(IRIS[0], IRIS[0][:, :2])
    document = orjson.loads(fitted.get_booster().save_raw("json"))
    tree = functools.reduce(lambda place, key: place[key], TREE, document)
    leaf = tree["left_children"].index(-1)
    tree["right_children"][leaf] = 999
    (tmp_path / "model.json").write_bytes(orjson.dumps(document))
    with pytest.raises(errors.LoadFailed, match="leaf's weights"):
        contract.load(tmp_path)


@pytest.mark.parametrize("booster", ["gbtree", "dart"])
def test_the_number_for_missing_values_is_an_option(tmp_path: Path, booster: str) -> None:
    rows = IRIS[0].copy()
    rows[::3, 2] = -999
    fitted = xgboost.XGBClassifier(n_estimators=4, n_jobs=1, missing=-999, booster=booster)
    fitted.fit(rows, IRIS[1]).save_model(tmp_path / "model.ubj")
    loaded = contract.load(tmp_path, options={"missing": -999})
    np.testing.assert_allclose(
        loaded.predict({"input": rows.astype(np.float32)}, ())["predict"],
        fitted.predict_proba(rows),
        rtol=1e-6,
    )
    with pytest.raises(errors.LoadFailed, match="option missing: 'x' is not a number"):
        contract.load(tmp_path, options={"missing": "x"})


def test_the_old_binary_format_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.bst").write_bytes(b"binf" + bytes(200))
    with pytest.raises(errors.LoadFailed, match="XGBoost's old binary format"):
        contract.load(tmp_path)


def test_triton_s_declaration_of_forests_is_kept(tmp_path: Path) -> None:
    fitted = xgboost.XGBRegressor(n_estimators=4, n_jobs=1).fit(*IRIS)
    fitted.save_model(tmp_path / "xgboost.json")
    inputs = (model.TensorSpec("input__0", "FP32", (-1, 4)),)
    outputs = (model.TensorSpec("output__0", "FP32", (-1, 1)),)
    loaded = contract.load(tmp_path, inputs=inputs, outputs=outputs)
    assert loaded.signature.outputs == outputs
    given = loaded.predict({"input__0": IRIS[0].astype(np.float32)}, ())["output__0"]
    np.testing.assert_array_equal(given, fitted.predict(IRIS[0])[:, None])


@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
def test_every_kind_of_booster_answers_as_it_does(tmp_path: Path, booster: Any) -> None:
    # the coordinate descent of `shotgun`, gblinear's default, gives other weights at each run
    linear = (
        {"updater": "coord_descent", "feature_selector": "cyclic"} if booster == "gblinear" else {}
    )
    kept = {} if booster == "gblinear" else {"max_depth": 3}
    fitted = xgboost.train(
        {"booster": booster, "objective": "reg:squarederror", "nthread": 1, **kept, **linear},
        xgboost.DMatrix(*CANCER),
        5,
    )
    fitted.save_model(tmp_path / "model.ubj")
    loaded = contract.load(tmp_path)
    rows = CANCER[0].astype(np.float32)
    np.testing.assert_array_equal(
        loaded.predict({"input": rows}, ())["predict"], fitted.predict(xgboost.DMatrix(rows))
    )
    assert loaded.capabilities.is_reentrant == (booster == "gbtree")


def test_early_stopping_is_honoured(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True)
    fitted = xgboost.XGBRegressor(n_estimators=80, early_stopping_rounds=2, n_jobs=1)
    fitted.fit(
        features[:300], target[:300], eval_set=[(features[300:], target[300:])], verbose=False
    )
    fitted.save_model(tmp_path / "model.json")
    given = contract.load(tmp_path).predict({"input": features.astype(np.float32)}, ())["predict"]
    np.testing.assert_array_equal(given, fitted.predict(features))
    assert fitted.best_iteration < fitted.get_booster().num_boosted_rounds() - 1


def test_scores_of_several_classes_are_columns(tmp_path: Path) -> None:
    fitted = xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(*IRIS)
    fitted.save_model(tmp_path / "model.bst")
    loaded = contract.load(tmp_path)
    assert loaded.signature.outputs == (model.TensorSpec("predict", "FP32", (-1, 3)),)
    np.testing.assert_array_equal(
        loaded.predict({"input": IRIS[0].astype(np.float32)}, ())["predict"],
        fitted.predict_proba(IRIS[0]),
    )


def test_categories_split_as_they_do(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = np.stack([chance.integers(0, 12, 300), chance.normal(size=300)], axis=1).astype(
        np.float32
    )
    data = xgboost.DMatrix(
        rows, rows[:, 0] % 3, feature_types=["c", "float"], enable_categorical=True
    )
    fitted = xgboost.train({"max_cat_to_onehot": 1, "nthread": 1}, data, 4)
    fitted.save_model(tmp_path / "model.json")
    np.testing.assert_array_equal(
        contract.load(tmp_path).predict({"input": rows}, ())["predict"], fitted.predict(data)
    )


def change(document: Any, path: Sequence[Any], value: Any) -> Any:
    """Replace the value at a path of keys in the document."""
    *way, last = path
    functools.reduce(lambda place, key: place[key], way, document)[last] = value
    return document


FOREST = ("learner", "gradient_booster", "model")
TREE = (*FOREST, "trees", 0)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ((*TREE, "left_children", 0), 0, "do not form a tree"),
        ((*TREE, "left_children", 0), 999, "do not form a tree"),
        ((*TREE, "left_children", 0), -1, "one child only"),
        ((*TREE, "left_children"), [], "left_children has 0 values"),
        ((*TREE, "parents", 1), 5, "does not know it"),
        ((*TREE, "split_indices", 0), 30, "split's feature"),
        ((*TREE, "split_conditions"), [1.0], "split_conditions has 1 values"),
        ((*TREE, "left_children", 0), 1.5, "not whole"),
        ((*TREE, "left_children", 0), "x", "no numbers"),
        ((*FOREST, "tree_info", 0), 7, "tree's output"),
        ((*FOREST, "iteration_indptr", -1), 77, "iterations"),
        ((*TREE, "tree_param", "size_leaf_vector"), "9", "leaves have 9 outputs, but the model 1"),
        (("learner", "learner_model_param", "num_feature"), "0", "0 features"),
        (("learner", "gradient_booster", "name"), "other", "not|load"),
        (("learner",), {}, "learner_model_param"),
    ],
)
def test_wrong_indices_are_refused(
    tmp_path: Path, path: Sequence[Any], value: Any, reason: str
) -> None:
    original = orjson.loads(trained().save_raw("json"))
    (tmp_path / "model.json").write_bytes(orjson.dumps(change(original, path, value)))
    with pytest.raises(errors.LoadFailed, match=reason):
        contract.load(tmp_path, runtime="xgboost")


def test_other_json_is_not_taken_for_a_booster(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"name": "a learner"}')
    with pytest.raises(errors.LoadFailed, match="no runtime knows"):
        contract.load(tmp_path)
    with pytest.raises(errors.LoadFailed, match="not an XGBoost model"):
        contract.load(tmp_path / "model.json", runtime="xgboost")


def test_trees_of_other_places_are_refused() -> None:
    # Found by fuzzing: XGBoost ended the process.
    file = (
        Path(__file__).parent.parent / "fuzz" / "corpus" / "xgboost_file" / "tree-of-another-place"
    )
    with pytest.raises(errors.LoadFailed, match="ids of its trees"):
        xgboost_runtime._check_file("a digest of its own", file)
