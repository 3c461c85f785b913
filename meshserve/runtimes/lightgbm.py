"""Load LightGBM boosters from text files.

Files are checked before the library reads them, because a broken tree would end the process.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

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
    trees,
)

PLATFORM = "lightgbm"

FEATURES_MAX = 1 << 24

_END = "\nend of trees\n"

_NODE_ARRAYS = {
    *("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child"),
    *("internal_value", "internal_weight", "internal_count"),
}
_LEAF_ARRAYS = {"leaf_value", "leaf_weight", "leaf_count", "leaf_const", "num_features"}

_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)


def _looks_like_lightgbm(file: Path) -> bool:
    return re.match(rb"tree\r?\n", files.read_head(file, 16)) is not None


# KServe and MLServer call the file model.bst, as XGBoost's: its first line tells whose it is.
LAYOUT = files.Layout(
    ("model.txt", "model.bst"), (".txt", ".lgb", ".bst"), _looks_like_lightgbm, is_strict=True
)


class LightgbmRuntime(model_runtime.Runtime):
    """Loads text files that `Booster.save_model` wrote."""

    name = "lightgbm"
    library = "lightgbm"
    # Measured: see docs/decisions/0162-libraries-need-room.md.
    library_bytes = 80 << 20
    needs_files = False

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether there is a booster's text, by name and first line."""
        return LAYOUT.find(artifact.path) is not None

    def prepare(self, device: str) -> None:
        """Import LightGBM. Raises MissingExtra or LoadFailed."""
        prerequisites.check_device(device)
        _library()

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:  # noqa: ARG002 boosters live on the host
        """Return four times the file's size: the trees, and their text twice while it is read."""
        return model.Footprint(4 * artifact.size_bytes + (1 << 20))

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> tabular.TabularModel:
        """Load the booster in the file. Raises LoadFailed.

        Options: `num_threads`, 1 by default, and `categorical_columns`, the columns of a training
        frame that had categories, where the file does not say them.
        """
        self.prepare(device)
        file = files.find_model_file(spec, artifact, LAYOUT)
        reader = options.Options(spec)
        # Models share the cores, so a request must not start a thread on each of them.
        threads = reader.count("num_threads", 1)
        columns = reader.texts(booster_categories.OPTION)
        reader.check_known()
        booster = _read_booster(_library(), artifact.digest, file)
        kept = booster_categories.of_lightgbm(_read_text(file), columns)
        return tabular.verify(_estimator(booster, threads, kept, spec), spec)


def _library() -> Any:
    library = prerequisites.import_library("lightgbm", "LightGBM", "lightgbm")
    library.register_logger(_silent_logger())
    return library


@functools.cache
def _silent_logger() -> logging.Logger:
    """Return a disabled logger for LightGBM, which logs its errors and raises them as well."""
    logger = logging.getLogger("meshserve.runtimes.lightgbm.library")
    logger.disabled = True
    return logger


def _read_booster(library: Any, digest: str, file: Path) -> Any:
    try:
        _check_file(digest, file)
        # With the table of tree sizes LightGBM parses trees in threads of its own, and an exception
        # in one of them ends the process.
        text = _SIZES.sub("", _read_trees(file))
        return library.Booster(model_str=text, params={"verbosity": -1})
    except UnicodeDecodeError as error:
        raise errors.LoadFailed(f"{file.name} is not a LightGBM model: it is not text") from error
    except trees.BadTree as error:
        raise errors.LoadFailed(f"{file.name} is not a whole LightGBM model: {error}") from error
    except library.basic.LightGBMError as error:
        raise errors.LoadFailed(
            f"LightGBM can't load {file.name}: {files.summarize(error)}"
        ) from error


def _estimator(
    booster: Any,
    threads: int,
    kept: booster_categories.BoosterCategories | None,
    spec: model.ModelSpec,
) -> tabular.Estimator:
    names = tuple(booster.feature_name())
    # Column_0 and so on are LightGBM's own names for columns that have none.
    has_names = any(name != f"Column_{place}" for place, name in enumerate(names))
    predict = functools.partial(booster.predict, num_threads=threads)
    return tabular.Estimator(
        functions={"predict": forest_classes.described(predict, spec, gives_labels=False)},
        columns=booster.num_feature(),
        datatypes=("FP64", "FP32", *tabular.WHOLE),
        platform=PLATFORM,
        names=names if has_names or kept else (),
        by_column=kept.column_form() if kept else None,
        encode=kept.encode_matrix if kept else None,
        samples=kept.samples() if kept else {},
        # Predictions with the same number of iterations are thread-safe: LightGBM issue 666.
        is_reentrant=True,
    )


def _read_text(file: Path) -> str:
    # Files from Windows have line ends that the checks below do not know.
    return file.read_bytes().decode().replace("\r\n", "\n")


def _read_trees(file: Path) -> str:
    """Return the text up to the end of the trees; the rest is about training. Raises BadTree."""
    text, end, _ = _read_text(file).partition(_END)
    if not end:
        raise trees.BadTree("its end is missing")
    return text + end


@functools.lru_cache(maxsize=files.DIGESTS_MAX)
def _check_file(_digest: str, file: Path) -> None:
    """Raise BadTree unless the file is a whole booster. The same bytes are checked once."""
    _check(_read_trees(file))


def _check(text: str) -> None:
    """Raise BadTree for a text that is cut short, or whose trees have wrong indices."""
    if not text.startswith("tree\n"):
        raise trees.BadTree("its first line is not `tree`")
    head, *sections = re.split(r"^Tree=\d+\n", text.removesuffix(_END), flags=re.MULTILINE)
    header = _pairs(head)
    features = _number(header, "max_feature_idx") + 1
    _check_header(header, features, len(sections))
    for section in sections:
        _check_tree(_pairs(section), features)


def _check_header(header: Mapping[str, str], features: int, count: int) -> None:
    if not 0 < features <= FEATURES_MAX:
        raise trees.BadTree(f"it has {features} features")
    outputs = _number(header, "num_tree_per_iteration")
    if outputs < 1 or _number(header, "num_class") != outputs or count % outputs:
        raise trees.BadTree("its number of trees does not fit its number of classes")
    classes = re.search(r"num_class:(\d+)", header.get("objective", ""))
    # The objective converts as many scores as it names, even past the end of those given.
    if classes and int(classes[1]) != outputs:
        raise trees.BadTree("its objective has another number of classes")
    sizes = header.get("tree_sizes", "").split()
    if "tree_sizes" in header and len(sizes) != count:
        raise trees.BadTree(f"it has {count} trees of {len(sizes)}")
    # LightGBM reads the first letters of a name that is not there.
    if not header.get("objective", "none").strip():
        raise trees.BadTree("its objective has no name")
    for name in ("feature_names", "feature_infos"):
        if len(header.get(name, "").split(" ")) != features:
            raise trees.BadTree(f"{name} does not have {features} entries")


def _check_tree(tree: Mapping[str, str], features: int) -> None:
    leaves = _number(tree, "num_leaves")
    if leaves < 1 or len(tree.get("leaf_value", "").split()) != leaves:
        raise trees.BadTree("a tree does not have the leaves that it says")
    _number(tree, "num_cat")
    if tree.get("is_linear", "0") != "0":
        _check_linear(tree, leaves)
    if leaves == 1:
        # LightGBM reads no more of it, and writes what it has: lines without values.
        return
    for names, count in ((_NODE_ARRAYS, leaves - 1), (_LEAF_ARRAYS, leaves)):
        trees.check_lengths({name: _numbers(tree, name) for name in names & tree.keys()}, count)
    arrays = {
        name: _numbers(tree, name)
        for name in ("left_child", "right_child", "split_feature", "decision_type", "threshold")
    }
    trees.check_lengths(arrays, leaves - 1)
    left, right = trees.integers(arrays["left_child"]), trees.integers(arrays["right_child"])
    trees.check_children(left, right)
    children = np.concatenate([left, right])
    # LightGBM writes the leaf of number i as ~i, which is -1 - i.
    trees.check_indices(~children[children < 0], leaves, "leaf")
    trees.check_indices(trees.integers(arrays["split_feature"]), features, "split's feature")
    trees.check_indices(trees.integers(_numbers(tree, "leaf_features")), features, "leaf's feature")
    _check_categories(tree, arrays)


def _check_linear(tree: Mapping[str, str], leaves: int) -> None:
    """Raise BadTree unless each leaf of a linear tree has the features that it says."""
    counts = trees.integers(_numbers(tree, "num_features"))
    trees.check_lengths(
        {"num_features": counts, "leaf_const": _numbers(tree, "leaf_const")}, leaves
    )
    trees.check_indices(counts, FEATURES_MAX, "leaf")
    arrays = {name: _numbers(tree, name) for name in ("leaf_features", "leaf_coeff")}
    trees.check_lengths(arrays, int(counts.sum()))


def _check_categories(tree: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise BadTree if a categorical split, whose threshold numbers a range, has a wrong one."""
    count = _number(tree, "num_cat")
    # Bit 0 of LightGBM's decision types marks a categorical split.
    is_categorical = (trees.integers(arrays["decision_type"]) & 1).astype(bool)
    trees.check_indices(
        trees.integers(arrays["threshold"][is_categorical]), count, "categorical split"
    )
    if count == 0:
        return
    starts = trees.integers(_numbers(tree, "cat_boundaries"))
    trees.check_lengths({"cat_boundaries": starts}, count + 1)
    if (
        starts[0] != 0
        or (np.diff(starts) < 0).any()
        or starts[-1] != _numbers(tree, "cat_threshold").size
    ):
        raise trees.BadTree("its categories are out of range")


def _pairs(section: str) -> dict[str, str]:
    lines = [line.partition("=") for line in section.split("\n") if "=" in line]
    pairs = {name: value for name, _, value in lines}
    # LightGBM may take another one of two values.
    if len(pairs) != len(lines):
        raise trees.BadTree("it has two lines of one name")
    return pairs


def _number(pairs: Mapping[str, str], name: str) -> int:
    value = pairs.get(name, "")
    if not re.fullmatch(r"\d{1,9}", value):
        raise trees.BadTree(f"{name} is missing or no number")
    return int(value)


def _numbers(pairs: Mapping[str, str], name: str) -> np.ndarray:
    try:
        return np.array(pairs.get(name, "").split(), dtype=np.float64)
    except ValueError:
        raise trees.BadTree(f"{name} has something that is no number") from None
