from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from meshserve.core.values import model
from meshserve.runtimes import probing, tabular_trial

ROWS = {"x": np.arange(6.0).reshape(3, 2)}


def total(arrays: Any) -> Any:
    return arrays["x"].sum(1)


def refuse(_arrays: Any) -> Any:
    raise ValueError("never")


def test_outputs_are_found_by_one_row_and_by_several() -> None:
    trial = tabular_trial.try_out({"total": total}, set(), [ROWS])
    assert trial.specs == (model.TensorSpec("total", "FP64", (-1,)),)
    assert trial.has_rows
    assert trial.inputs["x"].tolist() == [[0, 1]]


def test_one_row_shows_nothing_of_several() -> None:
    one = {"x": ROWS["x"][:1]}
    assert not tabular_trial.try_out({"total": total}, set(), [one]).has_rows


def test_functions_that_fail_are_left_out_unless_they_are_wanted() -> None:
    calls = {"total": total, "other": refuse}
    assert list(tabular_trial.try_out(calls, set(), [ROWS]).sources) == ["total"]
    with pytest.raises(probing.ProbeFailed, match="never"):
        tabular_trial.try_out(calls, {"other"}, [ROWS])


def test_the_first_rows_that_are_taken_count() -> None:
    def wide(arrays: Any) -> Any:
        if arrays["x"].shape[1] < 4:
            raise ValueError("too narrow")
        return arrays["x"]

    trial = tabular_trial.try_out({"wide": wide}, set(), [ROWS, {"x": np.zeros((3, 4))}])
    assert trial.specs == (model.TensorSpec("wide", "FP64", (-1, 4)),)
    with pytest.raises(probing.ProbeFailed, match="too narrow"):
        tabular_trial.try_out({"wide": wide}, set(), [ROWS])


def test_known_values_take_the_place_of_made_up_ones() -> None:
    columns = {"age": np.zeros(3), "city": np.array([b"?"] * 3, object)}
    filled = tabular_trial.fill(columns, {0: (20, 30), 1: ("ü",)}, is_matrix=False)
    assert filled["age"].tolist() == [20, 30, 20]
    assert filled["city"].tolist() == ["ü".encode()] * 3
    matrix = tabular_trial.fill({"input": np.zeros((3, 2))}, {1: (7,)}, is_matrix=True)
    assert matrix["input"].tolist() == [[0, 7]] * 3
