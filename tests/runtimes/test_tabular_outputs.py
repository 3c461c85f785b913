from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import tabular_outputs


def outputs(function: Callable[[int], Any], rows: int) -> dict[str, list[Any]]:
    """What is served of a function's value for so many rows."""
    sources = tabular_outputs.find_sources("f", function(1), function(3))
    return {
        name: tabular_outputs.extract(source, function(rows)).tolist()
        for name, source in sources.items()
    }


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("targets", [1, 2, 3, 4])
def test_arrays_of_targets_have_rows_first(rows: int, targets: int) -> None:
    def scores(count: int) -> list[np.ndarray]:
        base = np.arange(count)[:, None]
        return [np.hstack([base + 100 * target, base]) for target in range(targets)]

    expected = [[[row + 100 * target, row] for target in range(targets)] for row in range(rows)]
    assert outputs(scores, rows) == {"f": expected}


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_list_of_rows_stays_as_it_is(rows: int) -> None:
    def lengths(count: int) -> list[np.ndarray]:
        return [np.array([row, row + 0.5]) for row in range(count)]

    assert outputs(lengths, rows) == {"f": [[row, row + 0.5] for row in range(rows)]}


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_ragged_targets_are_outputs(rows: int) -> None:
    def scores(count: int) -> list[np.ndarray]:
        return [np.zeros((count, 2)), np.ones((count, 3))]

    assert outputs(scores, rows) == {"f_0": [[0, 0]] * rows, "f_1": [[1, 1, 1]] * rows}


@pytest.mark.parametrize(
    "make", [pd.DataFrame, lambda columns: np.array([*columns.values()], dtype=object).T]
)
def test_columns_of_a_table_are_outputs(make: Callable[[Any], Any]) -> None:
    def table(count: int) -> Any:
        return make({"f_0": ["big"] * count, "f_1": [15.75] * count})

    assert outputs(table, 2) == {"f_0": [b"big", b"big"], "f_1": [15.75, 15.75]}


def test_another_form_than_before_is_the_model_s_fault() -> None:
    sources = tabular_outputs.find_sources("f", [np.zeros((1, 2)), np.ones((1, 3))], None)
    with pytest.raises(errors.ModelRaised, match="something else than when the model was loaded"):
        tabular_outputs.extract(sources["f_1"], [np.zeros((1, 2))])


@pytest.mark.parametrize(
    ("datatype", "shape", "declared", "rank"),
    [
        ("FP64", (-1,), ("FP32", (-1, 1)), 2),
        ("INT64", (-1,), ("FP32", (-1,)), 1),
        ("INT64", (-1, 1), ("INT32", (-1,)), 1),
    ],
)
def test_a_declared_output_may_differ_in_form(
    datatype: str, shape: tuple[int, ...], declared: tuple[str, tuple[int, ...]], rank: int
) -> None:
    spec = model.TensorSpec("y", *declared)
    actual = model.TensorSpec("f", datatype, shape)
    assert tabular_outputs.agree([spec], [actual]) == {spec: "f"}
    array = np.arange(2, dtype="f8" if datatype == "FP64" else "i8").reshape(2, *shape[1:])
    conformed = tabular_outputs.conform(array, spec)
    assert conformed.ndim == rank
    assert conformed.ravel().tolist() == [0, 1]


@pytest.mark.parametrize(
    "declared", [("INT64", (-1,)), ("BYTES", (-1,)), ("FP32", (-1, 2)), ("FP32", (-1, 1, 1))]
)
def test_a_declared_output_that_would_lose_values_is_refused(
    declared: tuple[str, tuple[int, ...]],
) -> None:
    actual = model.TensorSpec("f", "FP64", (-1,))
    with pytest.raises(errors.LoadFailed, match="'y' is declared"):
        tabular_outputs.agree([model.TensorSpec("y", *declared)], [actual])


def test_whole_numbers_are_not_cut() -> None:
    spec = model.TensorSpec("y", "INT32", (-1,))
    with pytest.raises(errors.ModelRaised, match="INT32 can't hold"):
        tabular_outputs.conform(np.array([2**40]), spec)
