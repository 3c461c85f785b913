from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import table_inputs, tensors

COLUMNS = ("a", "b")
MATRIX = model.Signature(
    (model.TensorSpec("input", "FP64", (-1, 2)),), (), table=model.Table(COLUMNS)
)
NAMELESS = model.Signature((model.TensorSpec("input", "FP64", (-1, 2)),), (), table=model.Table())
BY_COLUMN = model.Signature(
    (model.TensorSpec("a", "FP64", (-1,)), model.TensorSpec("b", "BYTES", (-1,))),
    (),
    table=model.Table(COLUMNS, is_by_column=True),
)


def take(signature: model.Signature, **given: tuple[str, Any]) -> dict[str, np.ndarray]:
    came = {
        name.replace("_", "-"): tensors.WireTensor(
            datatype, np.array(values, tensors.dtype(datatype))
        )
        for name, (datatype, values) in given.items()
    }
    assert signature.table is not None
    return table_inputs.to_inputs(came, signature, signature.table)


@pytest.mark.parametrize("signature", [MATRIX, NAMELESS])
@pytest.mark.parametrize(
    "datatype", [word for word in tensors.DTYPES if word not in ("BYTES", "BF16")]
)
@pytest.mark.parametrize("name", ["input", "input-0", "predict"])
def test_a_matrix_has_any_name_and_number(
    signature: model.Signature, datatype: str, name: str
) -> None:
    came = {name: tensors.WireTensor(datatype, np.eye(2, dtype=tensors.dtype(datatype)))}
    assert signature.table is not None
    taken = table_inputs.to_inputs(came, signature, signature.table)["input"]
    assert taken.dtype == np.float64
    assert taken.tolist() == [[1, 0], [0, 1]]


def test_bf16_is_read_by_its_value() -> None:
    bits = tensors.bfloat16_bits(np.array([[1.5, -2.0]], "f4"))
    assert take(MATRIX, x=("BF16", bits))["input"].tolist() == [[1.5, -2.0]]


def test_the_model_s_own_form_is_not_copied() -> None:
    array = np.ones((3, 2))
    given = {"input": tensors.WireTensor("FP64", array)}
    assert table_inputs.to_inputs(given, MATRIX, model.Table(COLUMNS))["input"] is array


def test_columns_come_in_any_order() -> None:
    taken = take(MATRIX, b=("INT8", [3, 4]), a=("FP32", [[1.5], [2.5]]))
    assert taken["input"].tolist() == [[1.5, 3], [2.5, 4]]
    by_column = take(BY_COLUMN, b=("BYTES", [b"x", b"y"]), a=("INT64", [[1], [2]]))
    assert {name: array.tolist() for name, array in by_column.items()} == {
        "a": [1, 2],
        "b": [b"x", b"y"],
    }


def test_a_matrix_is_split_for_a_model_of_columns() -> None:
    taken = take(BY_COLUMN, anything=("FP64", [[1, 2], [3, 4]]))
    assert {name: array.tolist() for name, array in taken.items()} == {"a": [1, 3], "b": [2, 4]}


@pytest.mark.parametrize(
    ("signature", "given", "reason"),
    [
        (MATRIX, {"a": ("FP64", [1])}, "the columns 'b' are missing; it takes the columns 'a'"),
        (MATRIX, {"a": ("FP64", [1]), "bb": ("FP64", [1])}, r"no column 'bb' \(is 'b'"),
        (MATRIX, {"a": ("FP64", [1]), "b": ("FP64", [1, 2])}, "'b' has 2 rows, .* have 1"),
        (MATRIX, {"a": ("FP64", [[1, 2]]), "b": ("FP64", [1])}, "'a' must have the shape"),
        (MATRIX, {"a": ("BYTES", [b"1"]), "b": ("FP64", [1])}, "'a' must be FP64, BYTES came"),
        (MATRIX, {"x": ("FP64", [[1, 2, 3]])}, r"\[-1, 2\] .*; \[1, 3\] came"),
        (MATRIX, {"x": ("BYTES", [[b"1", b"2"]])}, "must be FP64, BYTES came"),
        (MATRIX, {"x": ("INT64", [[2**60 + 1, 0]])}, "FP64 can't hold"),
        (NAMELESS, {"a": ("FP64", [1]), "b": ("FP64", [1])}, "one matrix, .* 'a', 'b' came"),
        (NAMELESS, {}, "one matrix, .* no input came"),
        (BY_COLUMN, {"x": ("FP64", [[1, 2, 3]])}, "neither a column of the model nor rows"),
        (BY_COLUMN, {}, "the columns 'a', 'b' are missing"),
    ],
)
def test_other_forms_are_refused_with_what_would_be_right(
    signature: model.Signature, given: dict[str, tuple[str, Any]], reason: str
) -> None:
    with pytest.raises(errors.InvalidRequest, match=reason):
        take(signature, **given)


def test_whole_numbers_take_no_decimals() -> None:
    spec = model.TensorSpec("x", "INT64", (-1, 1))
    signature = model.Signature((spec,), (), table=model.Table())
    assert take(signature, y=("FP32", [[2.0]]))["x"].tolist() == [[2]]
    with pytest.raises(errors.InvalidRequest, match="INT64 can't hold"):
        take(signature, y=("FP32", [[2.5]]))
    with pytest.raises(errors.InvalidRequest, match="INT64 can't hold"):
        take(signature, y=("FP64", [[float("nan")]]))
