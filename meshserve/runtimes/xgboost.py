"""XGBoost boosters from JSON or UBJSON, checked before the library reads them: its UBJSON reader crashes on broken files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import devices, files, optional_import, options, tabular, trees, ubjson

PLATFORM = "xgboost"

FEATURES_MAX = 1 << 24


def _looks_like_xgboost(file: Path) -> bool:
    first = files.head(file)
    return (first[:2] == b"{L" and b"learner" in first) or (
        first[:1] == b"{" and b'"learner"' in first
    )


LAYOUT = files.Layout(
    ("model.json", "model.ubj", "model.bst"),
    (".json", ".ubj", ".bst"),
    _looks_like_xgboost,
    is_strict=True,
)


class XgboostRuntime(model_runtime.Runtime):
    """Loads `.json`, `.ubj` and `.bst` files that `Booster.save_model` wrote."""

    name = "xgboost"
    needs_files = False

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Whether there is a booster's JSON or UBJSON, by name and first bytes."""
        return LAYOUT.find(artifact.path) is not None

    def prepare(self, device: str) -> None:
        """Import XGBoost. Raises MissingExtra, or LoadFailed where the device is not there."""
        devices.require_known(device)
        optional_import.require("xgboost", "XGBoost", "xgboost")

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:  # noqa: ARG002 boosters live on the host
        """The file is read whole and checked before its trees are built from it."""
        return model.Footprint(6 * artifact.size_bytes + (1 << 20))

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> tabular.TabularModel:
        """The booster, up to its best iteration if early stopping found one (options: `nthread`, 1 by default). Raises LoadFailed."""
        self.prepare(device)
        file = files.require(spec, artifact, LAYOUT)
        read = options.Options(spec)
        threads = read.count("nthread", 1)
        read.check_known()
        library = optional_import.require("xgboost", "XGBoost", "xgboost")
        _check(artifact.digest, file)
        booster = _booster(library, file, threads)
        return tabular.verified(_described(library, booster), spec)


def _booster(library: Any, file: Path, threads: int) -> Any:
    booster = library.Booster({"nthread": threads, "verbosity": 0})
    try:
        booster.load_model(_with_known_ending(file))
    except (library.core.XGBoostError, ValueError, UnicodeDecodeError) as error:
        raise errors.LoadFailed(f"XGBoost can't load {file.name}: {_reason(error)}") from error
    return booster


def _with_known_ending(file: Path) -> str | bytearray:
    """XGBoost tells formats apart by the ending; without a known one it gets the bytes, which it tells apart by the first."""
    return str(file) if file.suffix in (".json", ".ubj") else bytearray(file.read_bytes())


def _reason(error: Exception) -> str:
    """What XGBoost said, without the place in its sources and the stack that it adds."""
    said = files.first_line(error)
    return (
        said.rpartition("Check failed: ")[2]
        if "Check failed: " in said
        else said.partition("] ")[2] or said
    )


def _described(library: Any, booster: Any) -> tabular.Estimator:
    best = booster.attr("best_iteration")
    rounds = (0, int(best) + 1) if best is not None and best.isdecimal() else (0, 0)
    is_plain = _kind(booster) == "gbtree"
    predict: Callable[[np.ndarray], object] = functools.partial(
        _predicted_in_place, booster, rounds
    )
    if not is_plain:  # in place, dart rounds its sums otherwise and gblinear gives nothing
        predict = functools.partial(_predicted, library, booster, rounds)
    return tabular.Estimator(
        functions={"predict": predict},
        columns=booster.num_features(),
        datatypes=("FP32", "FP64"),
        platform=PLATFORM,
        is_reentrant=is_plain,  # `inplace_predict` promises it, `predict` does not
        faults=(ValueError, library.core.XGBoostError),
    )


def _kind(booster: Any) -> str:
    config = orjson.loads(booster.save_config())
    return str(config["learner"]["gradient_booster"]["name"])


def _predicted_in_place(booster: Any, rounds: tuple[int, int], rows: np.ndarray) -> object:
    return booster.inplace_predict(rows, iteration_range=rounds, validate_features=False)


def _predicted(library: Any, booster: Any, rounds: tuple[int, int], rows: np.ndarray) -> object:
    return booster.predict(
        library.DMatrix(rows, nthread=1), iteration_range=rounds, validate_features=False
    )


@functools.lru_cache(maxsize=files.DIGESTS_MAX)
def _check(_digest: str, file: Path) -> None:
    """Refuse a file that is no whole booster; the same bytes are read once only. Raises LoadFailed."""
    content = file.read_bytes()
    is_binary = content[1:2] == b"L"
    try:
        learner = (ubjson.loads(content) if is_binary else orjson.loads(content))["learner"]
        _check_learner(learner)
    except orjson.JSONDecodeError as error:
        raise errors.LoadFailed(f"{file.name} is not whole JSON: {error}") from error
    except ubjson.Malformed as error:
        raise errors.LoadFailed(f"{file.name} is not whole UBJSON: {error}") from error
    except trees.BadTree as error:
        raise errors.LoadFailed(f"{file.name} is not a sound XGBoost model: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise errors.LoadFailed(
            f"{file.name} is not an XGBoost model: {type(error).__name__}: {error}"
        ) from error


def _check_learner(learner: Mapping[str, Any]) -> None:
    shape = learner["learner_model_param"]
    features, groups = (
        int(shape["num_feature"]),
        max(1, int(shape.get("num_class", 0)), int(shape.get("num_target", 1))),
    )
    if not 0 < features <= FEATURES_MAX or groups > FEATURES_MAX:
        raise trees.BadTree(f"it has {features} features and {groups} outputs")
    booster = learner["gradient_booster"]
    if booster["name"] == "gblinear":
        trees.check_lengths(
            {"weights": np.asarray(booster["model"]["weights"])}, (features + 1) * groups
        )
        return
    if booster["name"] == "dart":
        trees.check_lengths(
            {"weight_drop": np.asarray(booster["weight_drop"])},
            len(booster["gbtree"]["model"]["trees"]),
        )
        booster = booster["gbtree"]
    _check_forest(booster["model"], features, groups)


def _check_forest(forest: Mapping[str, Any], features: int, groups: int) -> None:
    tree_groups = trees.integers(forest["tree_info"])
    trees.check_lengths({"tree_info": tree_groups}, len(forest["trees"]))
    trees.check_indices(tree_groups, groups, "tree's output")
    for tree in forest["trees"]:
        _check_tree(tree, features)
    if "iteration_indptr" in forest:
        starts = trees.integers(forest["iteration_indptr"])
        if starts.size and (
            starts[0] != 0 or starts[-1] != len(forest["trees"]) or (np.diff(starts) < 0).any()
        ):
            raise trees.BadTree("its iterations do not cover its trees")


def _check_tree(tree: Mapping[str, Any], features: int) -> None:
    left, right, split = (
        trees.integers(tree[name]) for name in ("left_children", "right_children", "split_indices")
    )
    nodes = int(tree["tree_param"]["num_nodes"])
    parents = trees.integers(tree["parents"])
    arrays = {
        "left_children": left,
        "right_children": right,
        "split_indices": split,
        "parents": parents,
    }
    same_length = (
        "split_conditions",
        "default_left",
        "base_weights",
        "loss_changes",
        "sum_hessian",
        "split_type",
    )
    is_scalar = int(tree["tree_param"].get("size_leaf_vector", "1")) <= 1
    arrays |= {name: np.asarray(tree[name]) for name in same_length if name in tree and is_scalar}
    trees.check_lengths(arrays, nodes)
    trees.check_children(left, right)
    if ((left < 0) != (right < 0)).any() or (left < -1).any():
        raise trees.BadTree("a node has one child only")
    inner = np.flatnonzero(left >= 0)
    if (
        (parents[left[inner]] != inner).any()
        or (parents[right[inner]] != inner).any()
        or (parents < 0).any()
    ):
        raise trees.BadTree("a node's parent does not know it")
    trees.check_indices(split[inner], features, "split's feature")
    _check_categories(tree, nodes)


def _check_categories(tree: Mapping[str, Any], nodes: int) -> None:
    """Categorical splits name ranges of one array; most models have none."""
    owners = trees.integers(tree.get("categories_nodes", []))
    if not owners.size:
        return
    starts, sizes = (
        trees.integers(tree["categories_segments"]),
        trees.integers(tree["categories_sizes"]),
    )
    trees.check_indices(owners, nodes, "categorical split")
    trees.check_lengths({"categories_segments": starts, "categories_sizes": sizes}, owners.size)
    if (starts < 0).any() or (sizes < 0).any() or (starts + sizes).max() > len(tree["categories"]):
        raise trees.BadTree("its categories are out of range")
