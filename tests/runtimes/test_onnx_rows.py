from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from meshserve.runtimes import onnx_rows
from tests.runtimes import onnx_files
from tests.runtimes.onnx_files import FLOAT, INT64

X = [("x", FLOAT, ["n", 4])]
Y = [("y", FLOAT, ["n", 4])]
PROBE = {"x": np.ones((1, 4), np.float32)}


def node(kind: str, *inputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), ["y"], **attributes)


def mixing(path: Path, probe: onnx_rows.Arrays = PROBE) -> str | None:
    return onnx_rows.find_row_mixing(onnxruntime, path, probe)


@pytest.mark.parametrize(
    "operators",
    [
        [node("Softmax", "x", axis=-1)],
        [node("MatMul", "x", "w")],
        [node("Gemm", "x", "w", "b", transB=1)],
        [node("Add", "x", "b")],
        [node("CumSum", "x", "one")],
        [node("Gather", "x", "order", axis=1)],
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"]),
            helper.make_node("Concat", ["n", "minus"], ["shape"], axis=0),
            helper.make_node("Reshape", ["x", "shape"], ["r"]),
            node("Relu", "r"),
        ],
        [
            helper.make_node("ReduceMean", ["x"], ["m"], axes=[1]),
            node("Sub", "x", "m"),
        ],
    ],
)
def test_operators_that_keep_rows_apart_are_shown(tmp_path: Path, operators: list[Any]) -> None:
    assert mixing(onnx_files.graph(tmp_path / "m.onnx", operators, X, Y, WEIGHTS)) is None


WEIGHTS = {
    "w": onnx_files.weight(4, 4),
    "b": onnx_files.weight(4),
    "zero": np.array([0]),
    "one": np.array(1),
    "minus": np.array([-1]),
    "order": np.array([3, 2, 1, 0]),
    "eight": np.array([-1, 8]),
    "four": np.array([-1, 4]),
    "limit": np.array(1, np.float32),
}


@pytest.mark.parametrize(
    ("operators", "words"),
    [
        ([node("Softmax", "x", axis=0)], "Softmax: it works along the rows"),
        ([node("CumSum", "x", "zero_axis")], "CumSum: it works along the rows"),
        (
            [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), node("Sub", "x", "m")],
            "ReduceMean",
        ),
        (
            [
                helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
                helper.make_node("Greater", ["m", "limit"], ["c"]),
                helper.make_node("Div", ["x", "limit"], ["d"]),
                node("Where", "c", "d", "x"),
            ],
            "ReduceMax",
        ),
        (
            [
                helper.make_node("Shape", ["x"], ["s"]),
                helper.make_node("Gather", ["s", "zero"], ["n"]),
                helper.make_node("Cast", ["n"], ["f"], to=FLOAT),
                node("Div", "x", "f"),
            ],
            "Div: a value depends on the number of rows",
        ),
        (
            [
                helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
                helper.make_node("MatMul", ["x", "t"], ["a"]),
                node("MatMul", "a", "x"),
            ],
            "MatMul",
        ),
        ([node("Gather", "x", "zero", axis=0)], "Gather"),
        ([node("RandomNormalLike", "x")], "it is not known to keep rows apart"),
        ([node("Gelu", "x", domain="com.microsoft")], "it is not known to keep rows apart"),
        (
            [
                helper.make_node("Slice", ["x", "back", "end", "zero", "minus"], ["r"]),
                node("Relu", "r"),
            ],
            "Slice",
        ),
        ([node("Add", "b", "b")], "output 'y'"),
    ],
)
def test_operators_that_mix_rows_are_named(
    tmp_path: Path, operators: list[Any], words: str
) -> None:
    more = {"zero_axis": np.array(0), "back": np.array([-1]), "end": np.array([-100])}
    path = onnx_files.graph(tmp_path / "m.onnx", operators, X, Y, WEIGHTS | more)
    assert words in (mixing(path) or "rows were taken to be apart")


def test_rows_of_a_recurrent_network_are_sequences_not_time(tmp_path: Path) -> None:
    sequences = onnx_files.lstm(tmp_path / "s.onnx", is_time_first=False)
    assert mixing(sequences, {"x": np.ones((1, 6, 4), np.float32)}) is None
    times = onnx_files.lstm(tmp_path / "t.onnx", is_time_first=True)
    assert "LSTM" in (mixing(times, {"x": np.ones((1, 1, 4), np.float32)}) or "")


def test_dimensions_of_other_names_are_not_one_batch(tmp_path: Path) -> None:
    path = onnx_files.graph(
        tmp_path / "m.onnx", [node("Add", "x", "z")], [*X, ("z", FLOAT, ["m", 4])], Y
    )
    assert mixing(path, PROBE | {"z": PROBE["x"]}) == "first dimensions differ by name: m, n"


def test_a_table_looked_up_by_rows_keeps_them_apart_only_if_it_is_a_weight(tmp_path: Path) -> None:
    ids = ("i", INT64, ["n"])
    probe = {"i": np.zeros(1, np.int64)}
    weight = onnx_files.graph(tmp_path / "w.onnx", [node("Gather", "w", "i")], [ids], Y, WEIGHTS)
    assert mixing(weight, probe) is None
    input_ = onnx_files.graph(tmp_path / "x.onnx", [node("Gather", "x", "i")], [*X, ids], Y)
    assert "Gather" in (mixing(input_, PROBE | probe) or "")


def test_an_unreadable_file_shows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x0f\x00")
    assert mixing(path) == "the file is not Protobuf"
