from __future__ import annotations

import numpy as np
import pytest

from meshserve import errors
from meshserve.runtimes import categories

NUMBERS = categories.CategoryCodes("c", [10, 20, 30])
TEXTS = categories.CategoryCodes("t", ["a", "ö"])
STRICT = categories.CategoryCodes("s", ["a", "ö"], is_strict=True)


def objects(*items: object) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8])
def test_numbers_of_any_type_have_their_codes(dtype: type) -> None:
    np.testing.assert_array_equal(NUMBERS.encode(np.array([30, 10, 99], dtype)), [2, 0, np.nan])


def test_gaps_and_unknown_values_are_missing_ones() -> None:
    cells = objects("ö".encode(), b"zz", None, float("nan"))
    np.testing.assert_array_equal(TEXTS.encode(cells), [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(STRICT.encode(objects(None, b"a")), [np.nan, 0])


def test_values_of_another_type_are_refused() -> None:
    with pytest.raises(
        errors.InvalidRequest, match=r"'t' takes its categories \('a', 'ö'\), not 1"
    ):
        TEXTS.encode(np.array([1.0]))
    with pytest.raises(errors.InvalidRequest, match=r"'c' takes its categories .*, not '10'"):
        NUMBERS.encode(objects(b"10"))
    with pytest.raises(errors.InvalidRequest, match="not 'b'"):
        STRICT.encode(objects(b"b"))


def test_only_columns_with_categories_change() -> None:
    rows = np.array([[0.5, 20, 7], [np.nan, 30, 8]])
    rows.flags.writeable = False
    encoded = categories.encode_matrix(rows, {1: NUMBERS})
    np.testing.assert_array_equal(encoded, [[0.5, 1, 7], [np.nan, 2, 8]])
    assert categories.encode_matrix(rows, {}) is rows
    columns = [np.array([1, 2]), objects(b"a", b"b")]
    np.testing.assert_array_equal(
        categories.encode_columns(columns, ["x", "t"], {1: TEXTS}), [[1, 0], [2, np.nan]]
    )
    with pytest.raises(errors.InvalidRequest, match="column 't' takes numbers, texts came"):
        categories.encode_columns(columns, ["x", "t"], {})


def test_a_column_without_categories_has_gaps_alone() -> None:
    column = categories.CategoryCodes("c", [])
    assert column.example is None
    np.testing.assert_array_equal(column.encode(np.array([1.0, np.nan])), [np.nan, np.nan])
