from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from tests.runtimes import asking, contract

WINE = load_wine(return_X_y=True)


@functools.cache
def trained(**parameters: Any) -> Any:
    parameters = {
        "objective": "multiclass",
        "num_class": 3,
        "verbosity": -1,
        "num_threads": 1,
        **parameters,
    }
    return lightgbm.train(parameters, lightgbm.Dataset(*WINE), 5)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("lightgbm") / "wine.txt"
    trained().save_model(path)
    rows = WINE[0][::40]
    return contract.Sample(
        "lightgbm", path, {"input": rows}, {"predict": trained().predict(rows)}, library="lightgbm"
    )


class TestContract(contract.RuntimeContract):
    """LightGBM boosters."""


@pytest.mark.edge
def test_broken_files_are_refused(sample: contract.Sample) -> None:
    assert contract.survivors(sample)["refused"] >= 120


def test_missing_values_are_values(loaded: model_runtime.LoadedModel) -> None:
    rows = WINE[0][:4].copy()
    rows[:, ::2] = np.nan
    np.testing.assert_array_equal(
        loaded.predict({"input": rows}, ())["predict"], trained().predict(rows)
    )


def test_single_precision_may_be_declared(sample: contract.Sample) -> None:
    loaded = sample.load(inputs=(model.TensorSpec("features", "FP32", (-1, 13)),))
    rows = WINE[0][:6].astype(np.float32)
    np.testing.assert_array_equal(
        loaded.predict({"features": rows}, ())["predict"], trained().predict(rows)
    )


def test_one_score_is_one_number_a_row(tmp_path: Path) -> None:
    features, labels = load_breast_cancer(return_X_y=True)
    fitted = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(features, labels),
        3,
    )
    fitted.save_model(tmp_path / "model.txt")
    loaded = contract.load(tmp_path)
    assert loaded.signature.outputs == (model.TensorSpec("predict", "FP64", (-1,)),)
    np.testing.assert_array_equal(
        loaded.predict({"input": features}, ())["predict"], fitted.predict(features)
    )


def test_categories_split_as_they_do(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = np.stack([chance.integers(0, 60, 600).astype(float), chance.normal(size=600)], axis=1)
    data = lightgbm.Dataset(rows, rows[:, 0] % 7, categorical_feature=[0], free_raw_data=False)
    fitted = lightgbm.train(
        {"verbosity": -1, "num_threads": 1, "min_data_per_group": 1, "cat_smooth": 1}, data, 4
    )
    fitted.save_model(tmp_path / "model.txt")
    assert re.search(r"num_cat=[1-9]", fitted.model_to_string())
    np.testing.assert_array_equal(
        contract.load(tmp_path).predict({"input": rows}, ())["predict"], fitted.predict(rows)
    )


@pytest.mark.parametrize(
    "more",
    [
        {"linear_tree": True},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"boosting": "dart"},
    ],
    ids=str,
)
def test_other_kinds_of_trees_answer_as_they_do(tmp_path: Path, more: Any) -> None:
    features, target = load_diabetes(return_X_y=True)
    parameters = {"verbosity": -1, "num_threads": 1, **more}
    fitted = lightgbm.train(parameters, lightgbm.Dataset(features, target, params=parameters), 4)
    fitted.save_model(tmp_path / "model.txt")
    np.testing.assert_array_equal(
        contract.load(tmp_path).predict({"input": features}, ())["predict"],
        fitted.predict(features),
    )


def test_a_file_with_xgboost_s_name_is_told_by_its_content(tmp_path: Path) -> None:
    trained().save_model(tmp_path / "model.bst")
    for path in (tmp_path, tmp_path / "model.bst"):
        loaded = contract.load(path)
        assert loaded.signature.platform == "lightgbm"
        np.testing.assert_array_equal(
            loaded.predict({"input": WINE[0]}, ())["predict"], trained().predict(WINE[0])
        )


def test_triton_s_declaration_of_forests_is_kept(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True)
    fitted = lightgbm.train({"verbosity": -1}, lightgbm.Dataset(features, target), 3)
    fitted.save_model(tmp_path / "model.txt")
    inputs = (model.TensorSpec("input__0", "FP32", (-1, 10)),)
    outputs = (model.TensorSpec("output__0", "FP32", (-1, 1)),)
    loaded = contract.load(tmp_path, inputs=inputs, outputs=outputs)
    rows = features.astype(np.float32)
    given = loaded.predict({"input__0": rows}, ())["output__0"]
    expected = np.asarray(fitted.predict(rows), np.float32)
    np.testing.assert_array_equal(given, expected[:, None])


def test_columns_come_by_the_names_in_the_file(tmp_path: Path) -> None:
    data = lightgbm.Dataset(WINE[0], WINE[1], feature_name=[f"wine_{place}" for place in range(13)])
    fitted = lightgbm.train({"verbosity": -1}, data, 3)
    fitted.save_model(tmp_path / "model.txt")
    loaded = contract.load(tmp_path)
    rows = WINE[0][::50]
    dicts = [{f"wine_{place}": row[place] for place in reversed(range(13))} for row in rows]
    np.testing.assert_array_equal(asking.predictions(loaded, dicts), fitted.predict(rows))


def test_a_file_from_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_bytes(trained().model_to_string().replace("\n", "\r\n").encode())
    np.testing.assert_array_equal(
        contract.load(tmp_path).predict({"input": WINE[0]}, ())["predict"],
        trained().predict(WINE[0]),
    )


@pytest.mark.parametrize(
    ("pattern", "replacement", "reason"),
    [
        (r"left_child=\S+", "left_child=0", "do not form a tree"),
        (r"left_child=\S+", "left_child=999", "do not form a tree"),
        (r"left_child=\S+", "left_child=-99", "leaf"),
        (r"split_feature=\S+", "split_feature=13", "split's feature"),
        (r"decision_type=\S+", "decision_type=1", "categorical split|not whole"),
        (r"num_leaves=\d+", "num_leaves=3", "leaves that it says"),
        (r"num_leaves=\d+", "num_leaves=x", "num_leaves is missing"),
        (r"threshold=\S+", "threshold=x", "no number"),
        (r"num_class=3", "num_class=2", "number of classes"),
        (r"num_class:3", "num_class:4", "number of classes"),
        (r"max_feature_idx=12", "max_feature_idx=20", "feature_names"),
        (r"end of trees", "", "end is missing"),
        (r"tree_sizes=\d+", "tree_sizes=", "trees of"),
        (r"tree_sizes=(.*)", r"tree_sizes=\1\ntree_sizes=\1", "two lines of one name"),
        (r"num_cat=0\n", "", "num_cat is missing"),
        (r"leaf_count=\d+", "leaf_count=", "leaf_count has"),
        (r"objective=.*", "objective=", "objective has no name"),
    ],
)
def test_wrong_indices_are_refused(
    tmp_path: Path, pattern: Any, replacement: Any, reason: str
) -> None:
    (tmp_path / "model.txt").write_text(
        re.sub(pattern, replacement, trained().model_to_string(), count=1)
    )
    with pytest.raises(errors.LoadFailed, match=reason):
        contract.load(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "replacement", "reason"),
    [
        (r"num_features=\d+ ", "num_features=", "num_features has"),
        (r"leaf_const=\S+ ", "leaf_const=", "leaf_const has"),
        (r"leaf_coeff= *\S+", "leaf_coeff=", "leaf_coeff has"),
    ],
)
def test_linear_leaves_of_other_lengths_are_refused(
    tmp_path: Path, pattern: str, replacement: str, reason: str
) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 3))
    whole = lightgbm.train(
        {"verbosity": -1, "num_leaves": 4, "linear_tree": True},
        lightgbm.Dataset(rows, rows[:, 0] * 2),
        2,  # the first tree has constant leaves
    ).model_to_string()
    file = tmp_path / "model.txt"
    file.write_text(whole)
    contract.load(tmp_path)
    file.write_text(re.sub(pattern, replacement, whole, count=1))
    with pytest.raises(errors.LoadFailed, match=reason):
        contract.load(tmp_path)


def test_other_text_is_not_taken_for_a_booster(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("trees are green\n")
    with pytest.raises(errors.LoadFailed, match="no runtime knows"):
        contract.load(tmp_path)
    with pytest.raises(errors.LoadFailed, match="not a whole LightGBM model"):
        contract.load(tmp_path / "model.txt", runtime="lightgbm")
