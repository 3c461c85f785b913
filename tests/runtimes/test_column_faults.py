from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from meshserve.runtimes import column_faults

KNOWN = {"age": np.array([1.0]), "city": np.array([b"a"], object), "size": np.array([2.0])}
AGES, CITIES, SIZES = np.array([1, 2]), np.array([b"x", b"y"], object), np.array([0.5, 0.5])


def predict(columns: Any) -> Any:
    assert list(columns) == ["age", "city", "size"]
    return columns["age"] + columns["size"], [city.lower() for city in columns["city"]]


def test_the_column_is_named() -> None:
    assert column_faults.find({"age": CITIES, "city": CITIES, "size": SIZES}, KNOWN, predict) == [
        "column 'age' takes numbers, BYTES came"
    ]
    assert column_faults.find({"age": AGES, "city": AGES, "size": SIZES}, KNOWN, predict) == [
        "column 'city' takes texts, INT64 came"
    ]
    gaps = np.array([b"x", None], object)
    assert column_faults.find({"age": AGES, "city": gaps, "size": SIZES}, KNOWN, predict) == [
        "column 'city' has a gap (null), and takes texts"
    ]


def test_several_columns_are_named() -> None:
    faults = column_faults.find({"age": CITIES, "city": AGES, "size": SIZES}, KNOWN, predict)
    assert [fault.split()[1] for fault in faults] == ["'age'", "'city'"]


def test_a_fault_of_the_model_is_none_of_a_column() -> None:
    def broken(_columns: Any) -> Any:
        raise TypeError("a bug")

    given = {"age": CITIES, "city": CITIES, "size": SIZES}
    assert column_faults.find(given, KNOWN, broken) == []


def test_columns_of_the_right_kinds_are_not_tried() -> None:
    def never(_columns: Any) -> Any:
        pytest.fail("the model was run")

    given = {"age": AGES, "city": CITIES, "size": np.array([True, False])}
    assert column_faults.find(given, KNOWN, never) == []


def test_a_column_that_the_model_takes_is_not_blamed() -> None:
    def any_size(columns: Any) -> Any:
        return [city.lower() for city in columns["city"]]

    given = {"age": AGES, "city": AGES, "size": CITIES}
    assert column_faults.find(given, KNOWN, any_size) == ["column 'city' takes texts, INT64 came"]
