from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from meshserve.runtimes import onnx_graph, onnx_sizes, row_rules
from tests.runtimes import onnx_files
from tests.runtimes.onnx_files import FLOAT, INT64
from tests.runtimes.onnx_walks import WEIGHTS, X, Y, mixing, node

MORE = WEIGHTS | {
    "first": np.array([0]),
    "second": np.array([1]),
    "five": np.array([5]),
    "eight_rows": np.array([8]),
    "scale": np.array([2.0], np.float32),
}
ROWS = helper.make_node("Gather", ["s", "first"], ["n"])
FEATURES = helper.make_node("Gather", ["s", "second"], ["d"])
SHAPE = helper.make_node("Shape", ["x"], ["s"])


def walk(tmp_path: Path, *operators: Any) -> str | None:
    path = onnx_files.graph(tmp_path / "m.onnx", [SHAPE, *operators], X, Y, MORE)
    return mixing(path)


@pytest.mark.parametrize(
    "operators",
    [
        [
            FEATURES,
            helper.make_node("Cast", ["d"], ["f"], to=FLOAT),
            helper.make_node("Sqrt", ["f"], ["r"]),
            node("Div", "x", "r"),
        ],
        [
            ROWS,
            FEATURES,
            helper.make_node("Concat", ["n", "d"], ["t"], axis=0),
            node("Reshape", "x", "t"),
        ],
        [helper.make_node("Expand", ["b", "s"], ["e"]), node("Add", "x", "e")],
        [helper.make_node("ConstantOfShape", ["s"], ["e"]), node("Add", "x", "e")],
        [
            helper.make_node("Slice", ["s", "first", "second"], ["n"]),
            helper.make_node("Concat", ["n", "minus"], ["t"], axis=0),
            node("Reshape", "x", "t"),
        ],
    ],
)
def test_sizes_as_exporters_compute_them_keep_rows_apart(
    tmp_path: Path, operators: list[Any]
) -> None:
    assert walk(tmp_path, *operators) is None


@pytest.mark.parametrize("kind", ["Min", "Max", "Mod", "Div", "Equal", "Mul"])
def test_a_number_that_follows_the_rows_is_no_value_even_if_two_runs_agree(
    tmp_path: Path, kind: str
) -> None:
    # Of 3 and of 5 rows the remainder by 2 is 1, and the eighth part 0.
    number = {"Mod": "two", "Min": "two", "Max": "eight_rows", "Div": "eight_rows"}.get(
        kind, "five"
    )
    path = onnx_files.graph(
        tmp_path / "m.onnx",
        [
            SHAPE,
            ROWS,
            helper.make_node(kind, ["n", number], ["m"]),
            helper.make_node("Cast", ["m"], ["f"], to=FLOAT),
            node("Add", "x", "f"),
        ],
        X,
        Y,
        MORE | {"two": np.array([2])},
    )
    assert "a value depends on the number of rows" in (mixing(path) or "")


def test_a_part_is_not_chosen_by_the_number_of_rows(tmp_path: Path) -> None:
    more = MORE | {"two": np.array([2])}
    operators = [
        SHAPE,
        ROWS,
        helper.make_node("Div", ["n", "eight_rows"], ["from"]),
        helper.make_node("Add", ["from", "two"], ["to"]),
        helper.make_node("Slice", ["x", "from", "to", "second"], ["p"]),
        helper.make_node("Concat", ["p", "p"], ["y"], axis=1),
    ]
    path = onnx_files.graph(tmp_path / "m.onnx", operators, X, Y, more)
    assert "a value depends on the number of rows" in (mixing(path) or "")


def follow(kind: str, mask: list[bool], *others: np.ndarray, **attributes: Any) -> list[bool]:
    names = ["sizes", *(f"i{place}" for place in range(len(others)))]
    operator = onnx_graph.Node(kind, "", names, ["y"], dict(attributes))
    values = {"sizes": np.arange(len(mask)), **dict(zip(names[1:], others, strict=True))}
    values["y"] = np.arange(len(mask) if kind in ("Identity", "Mul", "ReduceProd") else 2)
    followed = onnx_sizes.follow(operator, {"sizes": np.array(mask)}, values, "y")
    return [bool(one) for one in followed.ravel()]


def test_each_element_is_followed() -> None:
    assert follow("Identity", [True, False]) == [True, False]
    assert follow("Mul", [True, False], np.array([2, 2])) == [True, False]
    assert follow("Gather", [True, False, False], np.array([2, 0])) == [False, True]
    assert follow("Slice", [True, False, False], np.array([1]), np.array([3])) == [False, False]
    assert follow("Slice", [True, False], starts=[0], ends=[2]) == [True, False]
    assert follow("ReduceProd", [True, False]) == [True, True]


def test_sizes_follow_the_rows_at_the_batch_axis_alone() -> None:
    output = row_rules.rows_of(((3, 4), (5, 4)))
    onnx_sizes.check_places(np.array([True, False]), output)
    with pytest.raises(row_rules.RowsMix):
        onnx_sizes.check_places(np.array([False, True]), output)


def test_a_whole_number_may_index_if_it_does_not_follow_the_rows(tmp_path: Path) -> None:
    operators = [SHAPE, FEATURES, node("Gather", "w", "d")]
    path = onnx_files.graph(
        tmp_path / "m.onnx", [*operators], X, [("y", INT64, ["m"])], MORE | {"w": np.arange(9)}
    )
    assert "output 'y'" in (mixing(path) or "")
