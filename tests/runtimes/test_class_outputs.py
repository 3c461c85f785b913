from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from meshserve import errors
from meshserve.runtimes import class_outputs

TWO = np.arange(2.0)


def arrays(answer: Any) -> dict[str, Any]:
    given = class_outputs.to_arrays(class_outputs.by_name(answer))
    return {name: (str(array.dtype), array.tolist()) for name, array in given.items()}


@pytest.mark.parametrize(
    ("answer", "outputs"),
    [
        (TWO, {"output": ("float64", [0, 1])}),
        (0.5, {"output": ("float64", 0.5)}),
        ("ü", {"output": ("object", "ü".encode())}),
        ([1, 2], {"output": ("int64", [1, 2])}),
        ((1, 2), {"output": ("int64", [1, 2])}),
        ((TWO, TWO), {"output_0": ("float64", [0, 1]), "output_1": ("float64", [0, 1])}),
        ((TWO, None), {"output_0": ("float64", [0, 1])}),
        ({"y": [1], "why": None}, {"y": ("int64", [1])}),
        (
            pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
            {"a": ("int64", [1, 2]), "b": ("object", [b"x", b"y"])},
        ),
        (pd.Series([1.5, 2.5]), {"output": ("float64", [1.5, 2.5])}),
        (
            {"c": pd.Series(["u", "v"], dtype="category")},
            {"c": ("object", [b"u", b"v"])},
        ),
    ],
    ids=repr,
)
def test_outputs_are_what_an_answer_has(answer: Any, outputs: Any) -> None:
    assert arrays(answer) == outputs


@pytest.mark.parametrize("answer", [None, {}, {"y": None}], ids=repr)
def test_nothing_is_no_answer(answer: Any) -> None:
    with pytest.raises(errors.ModelRaised):
        arrays(answer)


@pytest.mark.parametrize(
    "value", [[[1], [1, 2]], [1j], ["a", None], {"a": 1}, np.array(["2020"], "M8[D]")], ids=repr
)
def test_what_no_tensor_holds_is_told_with_its_output(value: Any) -> None:
    with pytest.raises(errors.ModelRaised, match="output 'y': the model gave"):
        arrays({"y": value})


def test_two_columns_of_one_name_are_refused() -> None:
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(errors.ModelRaised, match="two columns"):
        arrays(frame)


def test_later_runs_do_not_change_an_answer() -> None:
    buffer = np.zeros(2)
    answer = class_outputs.to_arrays({"y": buffer})
    buffer[:] = 7
    assert answer["y"].tolist() == [0, 0]
