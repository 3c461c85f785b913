"""The categories that LightGBM and XGBoost keep of the data frame that a booster was trained on.

Their trees know codes alone. Without this table a raw value like 20 would be taken for a code that
no split knows, and every row would silently get the same score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from meshserve import errors
from meshserve.runtimes import categories, tabular, xgboost_texts

OPTION = "categorical_columns"
"""The option that names the columns of a LightGBM frame's categories, where the file does not."""

_PANDAS = re.compile(r"^pandas_categorical:(.*)$", re.MULTILINE)
_FEATURES = re.compile(r"^\[categorical_feature: ?(.*)\]$", re.MULTILINE)
_NAMES = re.compile(r"^feature_names=(.*)$", re.MULTILINE)
_INFOS = re.compile(r"^feature_infos=(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BoosterCategories:
    """The names of a booster's columns, and the categories of some, by position."""

    names: tuple[str, ...]
    codes: Mapping[int, categories.CategoryCodes]

    def encode_matrix(self, rows: np.ndarray) -> np.ndarray:
        """Return rows [rows, columns] as FP64 with codes. Raises InvalidRequest."""
        return categories.encode_matrix(rows, self.codes)

    def encode_columns(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return columns [rows], in the model's order, as one matrix. Raises InvalidRequest."""
        return categories.encode_columns([*columns.values()], [*columns], self.codes)

    def column_form(self) -> tabular.ColumnForm | None:
        """Return how columns become a matrix, or None if no category is a text."""
        texts = {place for place, column in self.codes.items() if column.is_text}
        if not texts:
            return None
        datatypes = tuple("BYTES" if place in texts else "FP64" for place in range(len(self.names)))
        return tabular.ColumnForm(datatypes, self.encode_columns)

    def samples(self) -> dict[int, Sequence[Any]]:
        """Return a category of each column that has some, by position."""
        return {place: (column.example,) for place, column in self.codes.items() if column.values}


def _category_lists(text: str) -> list[list[Any]]:
    """Return the lists in the line `pandas_categorical` of LightGBM. Raises LoadFailed."""
    listed = _PANDAS.search(text)
    # Without a frame LightGBM writes `null`, and `[]` for a frame without categories.
    try:
        lists = (json.loads(listed[1]) if listed else None) or []
        if all(isinstance(values, list) for values in lists):
            return list(lists)
    except (json.JSONDecodeError, TypeError):
        pass
    raise errors.LoadFailed(
        "the line pandas_categorical of the model's file is cut or damaged: copy the file again"
    )


def of_lightgbm(text: str, columns: Sequence[str] = ()) -> BoosterCategories | None:
    """Return the categories in a LightGBM model's text, or None if it has none.

    The text lists the categories of each category column of the frame, but not its column. That is
    known if they are as many as the categorical features; else `columns` must name them. Raises
    LoadFailed if it is not known.
    """
    lists = _category_lists(text)
    if not lists:
        return None
    names = tuple(_line(_NAMES, text).split(" "))
    places = _places(text, names, columns)
    infos = _line(_INFOS, text).split(" ")
    is_clear = len(places) == len(lists) and all(
        _fits(infos[place], len(values)) for place, values in zip(places, lists, strict=False)
    )
    if not is_clear:
        raise errors.LoadFailed(
            f"the model's file has the categories of {len(lists)} columns of its training frame, "
            f"but {len(places)} categorical features, so it is not clear whose they are (ordered "
            f"categories are no categorical features): name the columns in the frame's order in "
            f"options: {{{OPTION}: […]}}"
        )
    codes = {
        place: categories.CategoryCodes(names[place], values)
        for place, values in zip(places, lists, strict=True)
    }
    return BoosterCategories(names, codes)


def _line(pattern: re.Pattern[str], text: str) -> str:
    line = pattern.search(text)
    return line[1].strip() if line else ""


def _places(text: str, names: Sequence[str], columns: Sequence[str]) -> list[int]:
    if columns:
        unknown = [name for name in columns if name not in names]
        if unknown:
            raise errors.LoadFailed(f"option {OPTION}: the model has no column {unknown[0]!r}")
        return [names.index(name) for name in columns]
    stated = _line(_FEATURES, text)
    # Parameters of LightGBM's command line may say `name:a,b`, which has no places.
    if stated and all(part.strip().isdigit() for part in stated.split(",")):
        return sorted(int(part) for part in stated.split(","))
    # Ranges of numbers are in brackets, categories are codes with colons between them.
    infos = _line(_INFOS, text).split(" ")
    return [
        place for place, info in enumerate(infos) if info != "none" and not info.startswith("[")
    ]


def _fits(info: str, count: int) -> bool:
    """Return whether all codes that training saw are those of so many categories."""
    numbers = [float(number) for number in re.split(r"[\[\]:]", info) if _is_number(number)]
    # LightGBM numbers the missing values of a category column -1.
    return all(-1 <= number < count for number in numbers)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?(e[+-]?\d+)?", text) is not None


def of_xgboost(learner: Mapping[str, Any]) -> BoosterCategories | None:
    """Return the categories in the parsed file of an XGBoost model, or None if it has none.

    XGBoost keeps them since 3.1; the trees of older files know codes, and nothing knows values.
    Raises LoadFailed if the file has too little of the texts of a column.
    """
    booster = learner["gradient_booster"]
    kept = booster.get("gbtree", booster).get("model", {}).get("cats", {}).get("enc", [])
    names = [str(name) for name in learner.get("feature_names", [])]
    # XGBoost itself calls columns without names f0, f1 and so on.
    names = names or [f"f{place}" for place in range(len(kept))]
    codes = {
        place: _codes_of_xgboost(names[place], column)
        for place, column in enumerate(kept)
        if len(column["values"])
    }
    return BoosterCategories(tuple(names), codes) if codes else None


def _codes_of_xgboost(name: str, kept: Mapping[str, Any]) -> categories.CategoryCodes:
    # Only texts have offsets: they are one run of bytes, and numbers are a list.
    if "offsets" not in kept:
        return categories.CategoryCodes(name, np.asarray(kept["values"]).tolist(), is_strict=True)
    # XGBoost writes bytes as signed numbers: those above 127 are negative, which uint8 refuses.
    raw = np.asarray(kept["values"], dtype=np.int64).astype(np.uint8).tobytes()
    texts = xgboost_texts.KeptTexts(raw, np.asarray(kept["offsets"], dtype=np.int64).tolist())
    example = texts.example()
    if example is None:
        raise errors.LoadFailed(
            f"the file has too little of the categories of column {name!r}: XGBoost cuts texts "
            f"with characters beyond ASCII; train it with other texts or with numbers"
        )
    return categories.CategoryCodes(
        name, texts.names, is_strict=True, find_code=texts.find_code, example=example
    )


def of_estimator(fitted: Any, columns: Sequence[str] = ()) -> BoosterCategories | None:
    """Return the categories of a LightGBM or XGBoost estimator with scikit-learn's interface.

    Return None for all others, and if it has no categories. Raises LoadFailed as `of_lightgbm`.
    """
    package = type(fitted).__module__.partition(".")[0]
    # The property `booster_` raises for an estimator that was not fitted.
    if package == "lightgbm" and getattr(fitted, "_Booster", None) is not None:
        booster = fitted.booster_
        if not booster.pandas_categorical:
            return None
        # One tree is enough: the categories lie beside the trees.
        return of_lightgbm(booster.model_to_string(num_iteration=1), columns)
    if package == "xgboost" and hasattr(fitted, "get_booster"):
        booster = fitted.get_booster()
        # Most boosters have no categories, and writing a big one as JSON takes time.
        if "c" not in (booster.feature_types or ()):
            return None
        return of_xgboost(orjson.loads(bytes(booster.save_raw("json")))["learner"])
    return None
