"""XGBoost boosters from JSON or UBJSON.

Files are checked before the library reads them, because its UBJSON reader crashes on broken ones.
The format is described at https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import (
    booster_categories,
    files,
    forest_classes,
    options,
    prerequisites,
    tabular,
    tabular_outputs,
    trees,
    ubjson,
)

PLATFORM = "xgboost"

FEATURES_MAX = 1 << 24

_OLD_HEAD = b"binf"
"""The first bytes of files before UBJSON."""


def _looks_like_xgboost(file: Path) -> bool:
    head = files.read_head(file)
    is_ubjson = head[:2] == b"{L" and b"learner" in head
    is_json = head[:1] == b"{" and b'"learner"' in head
    # Accepted so that it is refused by its name.
    return is_ubjson or is_json or head[: len(_OLD_HEAD)] == _OLD_HEAD


LAYOUT = files.Layout(
    ("model.json", "model.ubj", "model.bst"),
    (".json", ".ubj", ".bst"),
    _looks_like_xgboost,
    is_strict=True,
)


class XgboostRuntime(model_runtime.Runtime):
    """Loads `.json`, `.ubj` and `.bst` files that `Booster.save_model` wrote."""

    name = "xgboost"
    library = "xgboost"
    # Measured: see docs/decisions/0162-libraries-need-room.md.
    library_bytes = 80 << 20
    needs_files = False

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether there is a booster's JSON or UBJSON, by name and first bytes."""
        return LAYOUT.find(artifact.path) is not None

    def prepare(self, device: str) -> None:
        """Import XGBoost. Raises MissingExtra or LoadFailed."""
        prerequisites.check_device(device)
        _library()

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:  # noqa: ARG002 boosters live on the host
        """Return six times the file's size: it is parsed whole before trees are built from it."""
        return model.Footprint(6 * artifact.size_bytes + (1 << 20))

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> tabular.TabularModel:
        """Load the booster, which predicts up to the best iteration that early stopping found.

        Options: `nthread`, 1 by default, and `missing`, the number that stands for a missing value
        beside NaN: files do not keep it. Raises LoadFailed.
        """
        self.prepare(device)
        file = files.find_model_file(spec, artifact, LAYOUT)
        reader = options.Options(spec)
        # Models share the cores, so a request must not start a thread on each of them.
        threads = reader.count("nthread", 1)
        missing = reader.number("missing", math.nan)
        reader.check_known()
        library = _library()
        kept = _check_file(artifact.digest, file)
        booster, learner = _read_booster(library, file, threads)
        estimator = _estimator(library, booster, learner, missing, kept, spec)
        return tabular.verify(estimator, spec)


def _library() -> Any:
    return prerequisites.import_library("xgboost", "XGBoost", "xgboost")


def _read_booster(library: Any, file: Path, threads: int) -> tuple[Any, dict[str, Any]]:
    """Return the booster, and XGBoost's description of its learner. Raises LoadFailed."""
    booster = library.Booster({"nthread": threads, "verbosity": 0})
    try:
        # XGBoost tells formats apart by the ending, or of bytes by the first ones.
        has_known_ending = file.suffix in (".json", ".ubj")
        booster.load_model(str(file) if has_known_ending else bytearray(file.read_bytes()))
        # It checks what loading does not, such as how many base scores there are.
        learner = orjson.loads(booster.save_config())["learner"]
    except (library.core.XGBoostError, ValueError, UnicodeDecodeError) as error:
        raise errors.LoadFailed(f"XGBoost can't load {file.name}: {_reason(error)}") from error
    return booster, learner


def _reason(error: Exception) -> str:
    """Return XGBoost's message without the place in its sources and the stack that it adds."""
    message = files.summarize(error)
    if "Check failed: " in message:
        return message.rpartition("Check failed: ")[2]
    return message.partition("] ")[2] or message


def _estimator(
    library: Any,
    booster: Any,
    learner: dict[str, Any],
    missing: float,
    kept: booster_categories.BoosterCategories | None,
    spec: model.ModelSpec,
) -> tabular.Estimator:
    # A Booster answers with all its trees unless it is told which ones.
    best = booster.attr("best_iteration")
    rounds = (0, int(best) + 1) if best is not None and best.isdecimal() else (0, 0)
    is_plain = learner["gradient_booster"]["name"] == "gbtree"
    predict: tabular_outputs.Function = functools.partial(
        _predict_in_place, booster, rounds, missing
    )
    # In place, dart rounds its sums in another way, and gblinear gives nothing.
    if not is_plain:
        predict = functools.partial(_predict, library, booster, rounds, missing)
    gives_labels = learner["objective"]["name"] == "multi:softmax"
    return tabular.Estimator(
        functions={"predict": forest_classes.described(predict, spec, gives_labels=gives_labels)},
        columns=booster.num_features(),
        # A double holds all codes; a single rounds categories that are long numbers.
        datatypes=("FP64" if kept else "FP32", "FP32", "FP64", *tabular.WHOLE),
        platform=PLATFORM,
        names=tuple(booster.feature_names or (kept.names if kept else ())),
        by_column=kept.column_form() if kept else None,
        encode=kept.encode_matrix if kept else None,
        samples=kept.samples() if kept else {},
        # The documentation of `inplace_predict` promises thread safety, that of `predict` does not.
        is_reentrant=is_plain,
        refusals=(ValueError, library.core.XGBoostError),
    )


def _predict_in_place(
    booster: Any, rounds: tuple[int, int], missing: float, rows: np.ndarray
) -> object:
    return booster.inplace_predict(
        rows, iteration_range=rounds, missing=missing, validate_features=False
    )


def _predict(
    library: Any, booster: Any, rounds: tuple[int, int], missing: float, rows: np.ndarray
) -> object:
    return booster.predict(
        # By default threads on all cores fill a DMatrix.
        library.DMatrix(rows, missing=missing, nthread=1),
        iteration_range=rounds,
        # A matrix has no names, and a booster with names would refuse it.
        validate_features=False,
    )


@functools.lru_cache(maxsize=files.DIGESTS_MAX)
def _check_file(_digest: str, file: Path) -> booster_categories.BoosterCategories | None:
    """Return the booster's categories. The same bytes are checked once.

    Raises LoadFailed unless the file is a whole booster.
    """
    content = file.read_bytes()
    if content[: len(_OLD_HEAD)] == _OLD_HEAD:
        raise errors.LoadFailed(
            f"{file.name} is in XGBoost's old binary format, which XGBoost reads no more since "
            "3.1: load it with an older XGBoost and save it as model.ubj or model.json"
        )
    # A key of UBJSON begins with the type of its length, one of JSON with a quote.
    is_binary = content[1:2] == b"L"
    try:
        learner = (ubjson.loads(content) if is_binary else orjson.loads(content))["learner"]
        _check_learner(learner)
        return booster_categories.of_xgboost(learner)
    except orjson.JSONDecodeError as error:
        raise errors.LoadFailed(f"{file.name} is not whole JSON: {error}") from error
    except ubjson.Malformed as error:
        raise errors.LoadFailed(f"{file.name} is not whole UBJSON: {error}") from error
    except trees.BadTree as error:
        raise errors.LoadFailed(
            f"{file.name} is not a sound XGBoost model in a form that meshserve knows: {error}"
        ) from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise errors.LoadFailed(
            f"{file.name} is not an XGBoost model: {type(error).__name__}: {error}"
        ) from error


def _check_learner(learner: Mapping[str, Any]) -> None:
    shape = learner["learner_model_param"]
    features = int(shape["num_feature"])
    # `num_class` is 0 where a row has one score.
    groups = max(1, int(shape.get("num_class", 0)), int(shape.get("num_target", 1)))
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
        _check_tree(tree, features, groups)
    # XGBoost puts each tree at the place of its id, and follows whatever an empty place holds.
    ids = trees.integers([tree["id"] for tree in forest["trees"]])
    if not np.array_equal(np.sort(ids), np.arange(len(ids))):
        raise trees.BadTree("the ids of its trees are not those of their places")
    if "iteration_indptr" in forest:
        starts = trees.integers(forest["iteration_indptr"])
        if starts.size and (
            starts[0] != 0 or starts[-1] != len(forest["trees"]) or (np.diff(starts) < 0).any()
        ):
            raise trees.BadTree("its iterations do not cover its trees")


def _check_tree(tree: Mapping[str, Any], features: int, groups: int) -> None:
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
    leaf_size = _leaf_size(tree, groups)
    if leaf_size > 1:
        right = _check_leaves(tree, left, right, leaf_size)
    else:
        arrays |= {name: np.asarray(tree[name]) for name in same_length if name in tree}
    trees.check_lengths(arrays, nodes)
    trees.check_children(left, right)
    if ((left < 0) != (right < 0)).any() or (left < -1).any():
        raise trees.BadTree("a node has one child only")
    # Vector leaves come with a root whose parent is -1, others with one whose parent is 2^31 - 1.
    parents_from = 1 if leaf_size > 1 else 0
    inner = np.flatnonzero(left >= 0)
    if (
        (parents[left[inner]] != inner).any()
        or (parents[right[inner]] != inner).any()
        or (parents[parents_from:] < 0).any()
    ):
        raise trees.BadTree("a node's parent does not know it")
    trees.check_indices(split[inner], features, "split's feature")
    _check_categories(tree, nodes)


def _leaf_size(tree: Mapping[str, Any], groups: int) -> int:
    """Return the outputs of a leaf: 1, or those of the model. Raises BadTree for another number."""
    leaf_size = int(tree["tree_param"].get("size_leaf_vector", "1"))
    if leaf_size > 1 and leaf_size != groups:
        raise trees.BadTree(f"its leaves have {leaf_size} outputs, but the model {groups}")
    return leaf_size


def _check_leaves(
    tree: Mapping[str, Any], left: np.ndarray, right: np.ndarray, leaf_size: int
) -> np.ndarray:
    """Return the right children without the places of weights, which leaves have there.

    A leaf of several outputs keeps, in place of its right child, its number among the leaves, and
    the weights lie in one array of shape [leaves, outputs]. Raises BadTree if a number is too big.
    """
    if "leaf_weights" not in tree or left.shape != right.shape:
        # Up to XGBoost 3.0 each node has its weights, leaf or not.
        trees.check_lengths(
            {"base_weights": np.asarray(tree["base_weights"])}, left.size * leaf_size
        )
        return right
    weights = np.asarray(tree["leaf_weights"])
    is_leaf = left < 0
    if weights.ndim != 1 or weights.size % leaf_size:
        raise trees.BadTree("its leaf_weights do not fill its leaves")
    if not (right[is_leaf] < 0).all():
        trees.check_indices(right[is_leaf], weights.size // leaf_size, "leaf's weights")
    return np.where(is_leaf, -1, right)


def _check_categories(tree: Mapping[str, Any], nodes: int) -> None:
    """Raise BadTree if a categorical split names a range outside the array of categories."""
    owners = trees.integers(tree.get("categories_nodes", []))
    if not owners.size:
        return
    starts = trees.integers(tree["categories_segments"])
    sizes = trees.integers(tree["categories_sizes"])
    trees.check_indices(owners, nodes, "categorical split")
    trees.check_lengths({"categories_segments": starts, "categories_sizes": sizes}, owners.size)
    if (starts < 0).any() or (sizes < 0).any() or (starts + sizes).max() > len(tree["categories"]):
        raise trees.BadTree("its categories are out of range")
