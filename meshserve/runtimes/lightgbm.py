"""LightGBM boosters from text, checked before the library reads them: a broken tree ends its process."""

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
from meshserve.runtimes import devices, files, optional_import, options, tabular, trees

PLATFORM = "lightgbm"

FEATURES_MAX = 1 << 24

_END = "\nend of trees\n"

_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)


def _looks_like_lightgbm(file: Path) -> bool:
    return re.match(rb"tree\r?\n", files.head(file, 16)) is not None


LAYOUT = files.Layout(("model.txt",), (".txt", ".lgb"), _looks_like_lightgbm, is_strict=True)


class LightgbmRuntime(model_runtime.Runtime):
    """Loads text files that `Booster.save_model` wrote."""

    name = "lightgbm"
    needs_files = False

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Whether there is a booster's text, by name and first line."""
        return LAYOUT.find(artifact.path) is not None

    def prepare(self, device: str) -> None:
        """Import LightGBM. Raises MissingExtra, or LoadFailed where the device is not there."""
        devices.require_known(device)
        _library()

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:  # noqa: ARG002 boosters live on the host
        """Trees are about as big in memory as their text, which is held twice while it is read."""
        return model.Footprint(4 * artifact.size_bytes + (1 << 20))

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> tabular.TabularModel:
        """The booster in the file (options: `num_threads`, 1 by default). Raises LoadFailed."""
        self.prepare(device)
        file = files.require(spec, artifact, LAYOUT)
        read = options.Options(spec)
        threads = read.count("num_threads", 1)
        read.check_known()
        booster = _booster(_library(), artifact.digest, file)
        return tabular.verified(_described(booster, threads), spec)


def _library() -> Any:
    library = optional_import.require("lightgbm", "LightGBM", "lightgbm")
    library.register_logger(_silent())
    return library


@functools.cache
def _silent() -> logging.Logger:
    """LightGBM prints what it also raises."""
    logger = logging.getLogger("meshserve.runtimes.lightgbm.library")
    logger.disabled = True
    return logger


def _booster(library: Any, digest: str, file: Path) -> Any:
    """Read without its table of tree sizes: with it, trees are parsed in threads from which an exception ends the process."""
    try:
        _check_file(digest, file)
        return library.Booster(
            model_str=_SIZES.sub("", _text(file), count=1), params={"verbosity": -1}
        )
    except UnicodeDecodeError as error:
        raise errors.LoadFailed(f"{file.name} is not a LightGBM model: it is not text") from error
    except trees.BadTree as error:
        raise errors.LoadFailed(f"{file.name} is not a whole LightGBM model: {error}") from error
    except library.basic.LightGBMError as error:
        raise errors.LoadFailed(
            f"LightGBM can't load {file.name}: {files.first_line(error)}"
        ) from error


def _described(booster: Any, threads: int) -> tabular.Estimator:
    return tabular.Estimator(
        functions={"predict": functools.partial(booster.predict, num_threads=threads)},
        columns=booster.num_feature(),
        datatypes=("FP64", "FP32"),
        platform=PLATFORM,
        is_reentrant=True,  # its maintainers on LightGBM issue 666: safe for predictions with the same number of iterations
    )


def _text(file: Path) -> str:
    """The part that predictions need, up to the end of the trees; what follows tells how the booster was trained. Raises BadTree."""
    text, end, _ = file.read_bytes().decode().replace("\r\n", "\n").partition(_END)
    if not end:
        raise trees.BadTree("its end is missing")
    return text + end


@functools.lru_cache(maxsize=files.DIGESTS_MAX)
def _check_file(_digest: str, file: Path) -> None:
    """The check, once for the same bytes."""
    _check(_text(file))


def _check(text: str) -> None:
    """Refuse a text that is cut short or whose trees point where there is nothing. Raises BadTree."""
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
    told = re.search(r"num_class:(\d+)", header.get("objective", ""))
    if told and int(told[1]) != outputs:
        raise trees.BadTree("its objective has another number of classes")
    sizes = header.get("tree_sizes", "").split()
    if "tree_sizes" in header and len(sizes) != count:
        raise trees.BadTree(f"it has {count} trees of {len(sizes)}")
    for name in ("feature_names", "feature_infos"):
        if len(header.get(name, "").split(" ")) != features:
            raise trees.BadTree(f"{name} does not have {features} entries")


def _check_tree(tree: Mapping[str, str], features: int) -> None:
    leaves = _number(tree, "num_leaves")
    if leaves < 1 or len(tree.get("leaf_value", "").split()) != leaves:
        raise trees.BadTree("a tree does not have the leaves that it says")
    if leaves == 1:
        return
    arrays = {
        name: _numbers(tree, name)
        for name in ("left_child", "right_child", "split_feature", "decision_type", "threshold")
    }
    trees.check_lengths(arrays, leaves - 1)
    left, right = trees.integers(arrays["left_child"]), trees.integers(arrays["right_child"])
    trees.check_children(left, right)
    children = np.concatenate([left, right])
    trees.check_indices(~children[children < 0], leaves, "leaf")
    trees.check_indices(trees.integers(arrays["split_feature"]), features, "split's feature")
    trees.check_indices(trees.integers(_numbers(tree, "leaf_features")), features, "leaf's feature")
    _check_categories(tree, arrays)


def _check_categories(tree: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
    """Categorical splits have, for a threshold, the number of a range of one array; most models have none."""
    count = _number(tree, "num_cat")
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
    return dict(line.split("=", 1) for line in section.split("\n") if "=" in line)


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
