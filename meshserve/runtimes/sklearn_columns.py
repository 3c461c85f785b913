"""What fitted estimators tell of their columns, and whether their rows are independent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any

import numpy as np

SAMPLES_MAX = 3
"""Values of a column that made-up rows have."""

_LIBRARIES = ("sklearn", "lightgbm", "xgboost", "catboost", "imblearn")
"""Packages whose estimators have independent rows, but for the exceptions below."""

# Their solvers stop when the error of all rows together is small enough.
# IterativeImputer fills rows by its models unless all values of all rows are missing.
_MIXING = frozenset({"NMF", "MiniBatchNMF", "IterativeImputer"})

_DEPTH_MAX = 12


@dataclass(slots=True)
class ColumnFacts:
    """What is known of an estimator's columns, by their positions.

    `samples` are values that it takes, `texts` the columns that hold texts. In those of `nones`,
    None stood for a missing value, and NaN in all others. `needs_names`: it selects columns by
    name, so it takes data frames only.
    """

    samples: dict[int, Sequence[Any]] = field(default_factory=dict)
    texts: set[int] = field(default_factory=set)
    nones: set[int] = field(default_factory=set)
    needs_names: bool = False


def describe(fitted: Any, columns: int | None) -> ColumnFacts:
    """Return what the estimator and its parts tell of their columns."""
    facts = ColumnFacts()
    if columns is not None:
        _collect(fitted, list(range(columns)), facts, 0)
    return facts


def count(fitted: Any) -> int | None:
    """Return the number of columns that the estimator was fitted on, or None if it has none."""
    width = _known(fitted, "n_features_in_")
    if width == 0:
        # CatBoost's models lose the number with their file, but not the names.
        width = len(_known(fitted, "feature_names_") or ()) or None
    return None if width is None else int(width)


def feature_names(fitted: Any) -> tuple[str, ...]:
    """Return the names of the columns of the frame that the estimator was fitted on, or none."""
    names = _known(fitted, "feature_names_in_")
    if names is None:
        names = _names_of_frame(_known(fitted, "feature_names_"))
    return tuple(str(name) for name in names)


def _names_of_frame(names: Sequence[str] | None) -> Sequence[str]:
    """Return CatBoost's names of features, without those of a matrix: their numbers."""
    is_matrix = names is None or list(names) == [str(place) for place in range(len(names))]
    return () if names is None or is_matrix else names


def _known(fitted: Any, name: str) -> Any:
    """Return an attribute; of a pipeline that begins with `passthrough`, its first step's."""
    value = getattr(fitted, name, None)
    return getattr(innermost(fitted), name, None) if value is None else value


def innermost(fitted: Any) -> Any:
    """Return the estimator that first sees the rows: of a search the best, of a pipeline a step."""
    for _ in range(_DEPTH_MAX):
        if hasattr(fitted, "best_estimator_"):
            fitted = fitted.best_estimator_
        elif isinstance(getattr(fitted, "steps", None), list):
            fitted = _first_step(fitted)
        else:
            break
    return fitted


def _first_step(pipeline: Any) -> Any:
    for _, step in pipeline.steps:
        if step is not None and not isinstance(step, str):
            return step
    return None


def _collect(part: Any, columns: list[int], facts: ColumnFacts, depth: int) -> None:
    """Add what a part of an estimator, which sees these columns, tells of them."""
    if depth > _DEPTH_MAX or part is None or isinstance(part, str):
        return
    if _inner(part) is not part:
        _collect(_inner(part), columns, facts, depth + 1)
    elif hasattr(part, "transformers_"):
        _collect_selected(part, columns, facts, depth)
    elif hasattr(part, "transformer_list"):
        for _, branch in part.transformer_list:
            _collect(branch, columns, facts, depth + 1)
    elif takes_texts(part):
        for column in columns:
            facts.texts.add(column)
            facts.samples[column] = tuple(getattr(part, "vocabulary_", {}) or ("a",))[:SAMPLES_MAX]
    else:
        _collect_values(part, columns, facts)


def takes_texts(fitted: Any) -> bool:
    """Return whether the part that first sees the rows turns texts into numbers."""
    first = innermost(fitted)
    branches = getattr(first, "transformer_list", ())
    if branches:
        return all(takes_texts(branch) for _, branch in branches)
    # HashingVectorizer keeps no vocabulary; DictVectorizer has one, but takes dictionaries.
    name = type(first).__name__
    return name == "HashingVectorizer" or (
        hasattr(first, "vocabulary_") and name != "DictVectorizer"
    )


def _inner(part: Any) -> Any:
    """Return what a part hands its rows to as they are, or the part itself."""
    # Gradient boosting over histograms encodes categories by a part of its own.
    encoder = getattr(part, "_preprocessor", None)
    return innermost(part) if encoder is None else encoder


def _collect_selected(part: Any, columns: list[int], facts: ColumnFacts, depth: int) -> None:
    """Add what the branches of a ColumnTransformer tell, each of which sees its own columns."""
    # Private, but the public attribute has columns as users wrote them: names, slices, masks.
    places = getattr(part, "_transformer_to_input_indices", {})
    for name, branch, selected in part.transformers_:
        items = [selected] if isinstance(selected, (str, int, slice)) else list(selected)
        if any(isinstance(item, str) for item in items):
            facts.needs_names = True
        seen = [columns[place] for place in places.get(name, ()) if place < len(columns)]
        _collect(branch, seen, facts, depth + 1)


def _collect_values(part: Any, columns: list[int], facts: ColumnFacts) -> None:
    find_categorical = getattr(part, "get_cat_feature_indices", None)
    if find_categorical is not None:
        # CatBoost takes categories as texts or whole numbers, of any value.
        facts.texts.update(columns[place] for place in find_categorical())
    categories = getattr(part, "categories_", None)
    if isinstance(categories, list) and len(categories) == len(columns):
        for column, values in zip(columns, categories, strict=True):
            _add_values(column, list(values), facts)
    if getattr(part, "missing_values", "") is None:
        facts.nones.update(columns)
    statistics = getattr(part, "statistics_", None)
    if isinstance(statistics, np.ndarray) and statistics.size == len(columns):
        for column, value in zip(columns, statistics.tolist(), strict=True):
            if isinstance(value, str):
                _add_values(column, [value], facts)


def _add_values(column: int, values: list[Any], facts: ColumnFacts) -> None:
    if any(value is None for value in values):
        facts.nones.add(column)
    known = [value for value in values if value is not None and value == value]  # noqa: PLR0124 no NaN
    if any(isinstance(value, str) for value in known):
        facts.texts.add(column)
        known = [value for value in known if isinstance(value, str)]
    if known and column not in facts.samples:
        facts.samples[column] = tuple(known[:SAMPLES_MAX])


def are_rows_independent(fitted: Any) -> bool:
    """Return whether no row can influence another: only known for the parts of known libraries.

    A user's own class or function may look at all rows, and some solvers and drawn answers do.
    """
    return all(_is_row_wise(part) for part in parts(fitted))


def has_own_code(fitted: Any) -> bool:
    """Return whether a part is a user's own class or function, which may need a data frame."""
    return any(_is_own_code(part) for part in parts(fitted))


def _is_own_code(part: Any) -> bool:
    if type(part).__module__.partition(".")[0] not in _LIBRARIES:
        return True
    return any(map(_is_own_function, getattr(part, "__dict__", {}).values()))


def _is_own_function(value: Any) -> bool:
    """Return whether a part calls code that no library has: a kernel, weights, a tokenizer."""
    # numpy's ufuncs, such as log1p, work element by element.
    if not callable(value) or isinstance(value, (type, np.ufunc)):
        return False
    is_function = isinstance(value, (FunctionType, MethodType))
    module = getattr(value if is_function else type(value), "__module__", None) or ""
    return module.partition(".")[0] not in _LIBRARIES


def _is_row_wise(part: Any) -> bool:
    name = type(part).__name__
    if _is_own_code(part) or name in _MIXING:
        return False
    if name.startswith("Dummy"):
        # These strategies draw their answers at random.
        return getattr(part, "strategy", "") not in ("stratified", "uniform")
    return True


def parts(fitted: Any) -> Iterator[Any]:
    """Yield the estimator and all others inside it."""
    seen: set[int] = set()
    stack = [fitted]
    while stack:
        part = stack.pop()
        if id(part) in seen or isinstance(part, (str, bytes, int, float, np.ndarray, type)):
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            stack.extend(part.values())
        elif isinstance(part, (list, tuple, set)):
            stack.extend(part)
        elif _is_estimator(part):
            yield part
            stack.extend(vars(part).values() if hasattr(part, "__dict__") else ())


def _is_estimator(part: Any) -> bool:
    if isinstance(part, (FunctionType, MethodType)):
        return False
    return any(
        callable(getattr(part, name, None))
        for name in ("fit", "transform", "predict", "get_params")
    )
