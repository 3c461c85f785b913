from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from tests.runtimes import onnx_files
from tests.runtimes.onnx_files import FLOAT
from tests.runtimes.onnx_walks import PROBE, WEIGHTS, X, Y, mixing, node


def test_sizes_that_follow_the_rows_may_be_used_as_sizes(tmp_path: Path) -> None:
    operators = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "minus"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        node("Relu", "r"),
    ]
    assert mixing(onnx_files.graph(tmp_path / "m.onnx", operators, X, Y, WEIGHTS)) is None


@pytest.mark.parametrize(
    ("operators", "words"),
    [
        (
            [
                helper.make_node("Shape", ["x"], ["s"]),
                helper.make_node("Gather", ["s", "zero"], ["n"]),
                helper.make_node("Cast", ["n"], ["f"], to=FLOAT),
                node("Div", "x", "f"),
            ],
            "Div: a value depends on the number of rows",
        ),
        ([node("RandomNormalLike", "x")], "it is not known to keep rows apart"),
        ([node("Gelu", "x", domain="com.microsoft")], "it is not known to keep rows apart"),
        ([node("Add", "b", "b")], "output 'y'"),
    ],
)
def test_what_no_rule_allows_is_named(tmp_path: Path, operators: list[Any], words: str) -> None:
    path = onnx_files.graph(tmp_path / "m.onnx", operators, X, Y, WEIGHTS)
    assert words in (mixing(path) or "rows were taken to be apart")


def test_dimensions_of_other_names_are_not_one_batch(tmp_path: Path) -> None:
    path = onnx_files.graph(
        tmp_path / "m.onnx", [node("Add", "x", "z")], [*X, ("z", FLOAT, ["m", 4])], Y
    )
    assert mixing(path, PROBE | {"z": PROBE["x"]}) == "first dimensions differ by name: m, n"


def test_an_unreadable_file_shows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x0f\x00")
    assert mixing(path) == "the file is not Protobuf"
