from __future__ import annotations

from typing import Any

import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import v1_tables

MATRIX = model.Signature(
    (model.TensorSpec("input", "FP64", (-1, 2)),), (), table=model.Table(("a", "b"))
)
BY_COLUMN = model.Signature(
    (model.TensorSpec("a", "FP64", (-1,)), model.TensorSpec("b", "BYTES", (-1,))),
    (),
    table=model.Table(("a", "b"), is_by_column=True),
)


def rows(signature: model.Signature, instances: list[Any]) -> dict[str, tuple[str, list[Any]]]:
    assert signature.table is not None
    taken = v1_tables.from_rows(instances, signature, signature.table)
    return {name: (tensor.datatype, tensor.array.tolist()) for name, tensor in taken.items()}


@pytest.mark.parametrize(
    ("values", "datatype", "expected"),
    [
        ([1, 2], "INT64", [1, 2]),
        ([1, 2.5], "FP64", [1, 2.5]),
        ([True, False], "BOOL", [True, False]),
        ([True, 2], "FP64", [1, 2]),
        (["x", None], "BYTES", [b"x", None]),
        ([{"b64": "/w=="}, "a"], "BYTES", [b"\xff", b"a"]),
    ],
)
def test_a_column_has_the_datatype_of_its_values(
    values: list[Any], datatype: str, expected: list[Any]
) -> None:
    taken = rows(BY_COLUMN, [{"b": value, "a": 0} for value in values])
    assert taken == {"a": ("INT64", [0, 0]), "b": (datatype, expected)}
    assert rows(BY_COLUMN, [[0, value] for value in values]) == taken


def test_gaps_among_numbers_are_nan() -> None:
    ((datatype, values),) = [rows(BY_COLUMN, [[None, "x"], [1, "y"]])["a"]]
    assert datatype == "FP64"
    assert str(values) == "[nan, 1.0]"


def test_lists_of_a_matrix_are_rows() -> None:
    assert rows(MATRIX, [[1.5, 2], [3, 4]]) == {"input": ("FP64", [[1.5, 2], [3, 4]])}
    assert rows(MATRIX, [[True, 2.5]]) == {"input": ("FP64", [[1, 2.5]])}
    assert rows(MATRIX, [{"input": [1, 2.5]}]) == {"input": ("FP64", [[1, 2.5]])}


@pytest.mark.parametrize(
    ("matrix", "datatype", "expected"),
    [
        ([[2**53 + 1, 2]], "INT64", [[2**53 + 1, 2]]),
        ([[True, 2]], "INT64", [[1, 2]]),
        ([[2**64 - 1, 2]], "UINT64", [[2**64 - 1, 2]]),
        ([[-(2**63), 1]], "INT64", [[-(2**63), 1]]),
        ([[2**70, 1]], "FP64", [[2.0**70, 1.0]]),
        ([[2**63, -1]], "FP64", [[2.0**63, -1.0]]),
        ([[1, 2.5]], "FP64", [[1.0, 2.5]]),
        ([[1, None]], "FP64", [[1.0, float("nan")]]),
    ],
)
def test_whole_numbers_are_not_rounded(
    matrix: list[Any], datatype: str, expected: list[Any]
) -> None:
    ((sent, values),) = rows(MATRIX, matrix).values()
    assert sent == datatype
    assert repr(values) == repr(expected)


def test_a_frame_of_pandas_is_rows() -> None:
    frame = {"a": {"0": 1, "1": 2}, "b": {"0": "x", "1": "y"}}
    expected = {"a": ("INT64", [1, 2, 3]), "b": ("BYTES", [b"x", b"y", b"z"])}
    assert rows(BY_COLUMN, [frame, {"a": [3], "b": ["z"]}]) == expected


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        ([{"a": 1}], "instance 0: the columns 'b' are missing"),
        ([{"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 1}], "instance 1: the model has no column"),
        ([[1]], "instance 0 must have 2 values"),
        ([{"a": 1, "b": "x"}, {"a": 1, "b": 2}], "column 'b' must hold numbers or texts"),
        ([{"a": [1, 2], "b": ["x"]}], "instance 0 has columns of different lengths"),
    ],
)
def test_rows_of_another_form_are_refused(instances: list[Any], reason: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=reason):
        rows(BY_COLUMN, instances)


def test_columns_come_by_name_or_as_a_matrix_of_any() -> None:
    assert BY_COLUMN.table is not None
    assert MATRIX.table is not None
    taken = v1_tables.from_columns({"b": ["x"], "a": [[1]]}, BY_COLUMN, BY_COLUMN.table)
    assert taken["a"].array.tolist() == [1]
    for columns in ({"anything": [[1, 2]]}, [[1, 2]]):
        matrix = v1_tables.from_columns(columns, MATRIX, MATRIX.table)
        assert matrix["input"].array.tolist() == [[1, 2]]
    with pytest.raises(errors.InvalidRequest, match="the columns 'b' are missing"):
        v1_tables.from_columns({"a": [1]}, MATRIX, MATRIX.table)
