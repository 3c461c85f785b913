from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.runtimes import onnx_files
from tests.runtimes.onnx_files import INT64
from tests.runtimes.onnx_walks import PROBE, WEIGHTS, X, Y, mixing, node


@pytest.mark.parametrize(
    "operators",
    [
        [node("Softmax", "x", axis=-1)],
        [node("MatMul", "x", "w")],
        [node("Gemm", "x", "w", "b", transB=1)],
        [node("Add", "x", "b")],
        [node("CumSum", "x", "one")],
        [node("Pad", "x", "wider")],
        [
            helper.make_node("Unsqueeze", ["x", "one_axis"], ["u"]),
            helper.make_node("Trilu", ["u"], ["t"]),
            node("Squeeze", "t", "one_axis"),
        ],
        [node("Gather", "x", "order", axis=1)],
        [
            helper.make_node("ReduceMean", ["x"], ["m"], axes=[1]),
            node("Sub", "x", "m"),
        ],
    ],
)
def test_operators_that_keep_rows_apart_are_shown(tmp_path: Path, operators: list[Any]) -> None:
    more = {"wider": np.array([0, 1, 0, -1]), "one_axis": np.array([1])}
    assert mixing(onnx_files.graph(tmp_path / "m.onnx", operators, X, Y, WEIGHTS | more)) is None


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
                helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
                helper.make_node("MatMul", ["x", "t"], ["a"]),
                node("MatMul", "a", "x"),
            ],
            "MatMul",
        ),
        ([node("Gather", "x", "zero", axis=0)], "Gather"),
        (
            [
                helper.make_node("Slice", ["x", "back", "end", "zero", "minus"], ["r"]),
                node("Relu", "r"),
            ],
            "Slice",
        ),
        ([node("Trilu", "x")], "Trilu: it works along the rows"),
        ([node("Pad", "x", "shift")], "Pad: it works along the rows"),
        (
            [
                helper.make_node("Cast", ["x"], ["i"], to=INT64),
                node("GatherElements", "table", "i", axis=1),
            ],
            "GatherElements: it takes elements of other rows",
        ),
        (
            [helper.make_node("RandomNormalLike", ["b"], ["r"]), node("Add", "x", "r")],
            "RandomNormalLike",
        ),
        (
            [helper.make_node("Dropout", ["b", "half", "yes"], ["r"]), node("Add", "x", "r")],
            "Dropout",
        ),
    ],
)
def test_operators_that_mix_rows_are_named(
    tmp_path: Path, operators: list[Any], words: str
) -> None:
    more = {
        "zero_axis": np.array(0),
        "back": np.array([-1]),
        "end": np.array([-100]),
        "shift": np.array([1, 0, -1, 0]),
        "table": onnx_files.weight(64, 8),
        "half": np.array(0.5, np.float32),
        "yes": np.ones((), bool),
    }
    path = onnx_files.graph(tmp_path / "m.onnx", operators, X, Y, WEIGHTS | more)
    assert words in (mixing(path) or "rows were taken to be apart")


def test_rows_of_a_recurrent_network_are_sequences_not_time(tmp_path: Path) -> None:
    sequences = onnx_files.lstm(tmp_path / "s.onnx", is_time_first=False)
    assert mixing(sequences, {"x": np.ones((1, 6, 4), np.float32)}) is None
    times = onnx_files.lstm(tmp_path / "t.onnx", is_time_first=True)
    assert "LSTM" in (mixing(times, {"x": np.ones((1, 1, 4), np.float32)}) or "")


def test_a_table_looked_up_by_rows_keeps_them_apart_only_if_it_is_a_weight(tmp_path: Path) -> None:
    ids = ("i", INT64, ["n"])
    probe = {"i": np.zeros(1, np.int64)}
    weight = onnx_files.graph(tmp_path / "w.onnx", [node("Gather", "w", "i")], [ids], Y, WEIGHTS)
    assert mixing(weight, probe) is None
    input_ = onnx_files.graph(tmp_path / "x.onnx", [node("Gather", "x", "i")], [*X, ids], Y)
    assert "Gather" in (mixing(input_, PROBE | probe) or "")
