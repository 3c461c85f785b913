from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import datatypes


@pytest.mark.parametrize(
    ("word", "dtype"),
    [(word, dtype) for word, dtype in datatypes.NUMPY_TYPES.items() if word != "BF16"],
)
def test_each_word_comes_back_from_its_arrays(word: Any, dtype: Any) -> None:
    assert datatypes.datatype_of(dtype) == word
    assert datatypes.spec_for("x", np.zeros((2, 3), dtype)).datatype == word


@pytest.mark.parametrize(
    "array",
    [np.array(["é", "b"]), np.array([b"\xc3\xa9", b"b"]), np.array(["é", b"b"], dtype=object)],
    ids=["U", "S", "O"],
)
def test_texts_become_bytes_of_the_same_shape(array: Any) -> None:
    given = datatypes.to_wire(array.reshape(2, 1))
    assert given.shape == (2, 1)
    assert given.ravel().tolist() == ["é".encode(), b"b"]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [([1, 2], "INT64"), ([1, 2.5], "FP64"), ([True, False], "BOOL"), ([1, None], "FP64")],
    ids=str,
)
def test_numbers_that_lie_as_objects_are_numbers(objects: list[Any], expected: str) -> None:
    wire = datatypes.to_wire(np.array([objects], dtype=object))
    assert datatypes.spec_for("x", wire) == model.TensorSpec("x", expected, (1, 2))
    np.testing.assert_array_equal(wire, np.array([objects], dtype=wire.dtype))


@pytest.mark.parametrize("objects", [["a", 15.8], ["a", None], [1, object], [10**30]], ids=str)
def test_objects_without_a_common_datatype_are_the_model_s_fault(objects: list[Any]) -> None:
    with pytest.raises(errors.ModelRaised, match="no datatype for"):
        datatypes.to_wire(np.array(objects, dtype=object))


def test_rows_of_different_lengths_are_the_model_s_fault() -> None:
    with pytest.raises(errors.ModelRaised, match="form no tensor"):
        datatypes.to_wire([[1, 2], [3]])


def test_sparse_becomes_dense_and_numbers_stay() -> None:
    assert datatypes.to_wire(scipy.sparse.eye(2, format="csr")).tolist() == [[1, 0], [0, 1]]
    array = np.ones(3)
    assert datatypes.to_wire(array) is array


@pytest.mark.parametrize(
    "values",
    [
        [2**64 - 1, 1],
        [[2**53 + 1, 2**63]],
        np.array([2**64 - 1, 5], np.object_),
        [np.uint64(2**64 - 1), np.int64(1)],
    ],
    ids=str,
)
def test_whole_numbers_beyond_int64_are_not_rounded(values: Any) -> None:
    array = datatypes.to_wire(values)
    assert array.dtype == np.uint64
    assert array.tolist() == [list(row) if isinstance(row, list) else row for row in values]


def test_numbers_that_no_datatype_holds_together_are_refused() -> None:
    with pytest.raises(errors.ModelRaised, match="no one datatype holds"):
        datatypes.to_wire([2**63, -1])
    assert datatypes.to_wire([2.0**60, 1]).tolist() == [2.0**60, 1]
    assert datatypes.to_wire([float("inf"), 1]).tolist() == [float("inf"), 1]


@pytest.mark.parametrize(
    "array", [np.ones(1, complex), np.array(["2020"], "datetime64[Y]")], ids=str
)
def test_an_array_without_a_datatype_is_the_model_s_fault(array: Any) -> None:
    with pytest.raises(errors.ModelRaised, match=str(array.dtype)[:8]):
        datatypes.to_wire(array)


def test_bytes_become_texts_where_they_are() -> None:
    assert datatypes.to_texts(np.array([["é".encode()]], dtype=object)).tolist() == [["é"]]
    with pytest.raises(errors.InvalidRequest, match="not UTF-8"):
        datatypes.to_texts(np.array([b"\xff"], dtype=object))


def test_no_texts_are_no_texts() -> None:
    empty = np.empty((0, 2), dtype=object)
    assert datatypes.to_bytes(empty).shape == datatypes.to_texts(empty).shape == (0, 2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"a\0", b"bc\0\0"], [b"a\0", b"bc\0\0"]),
        ((["a\0"], ["é"]), [[b"a\0"], ["é".encode()]]),
        (b"\0\0", b"\0\0"),
        ("é", "é".encode()),
    ],
    ids=["bytes", "texts in a tuple", "one of bytes", "one text"],
)
def test_bytes_and_texts_keep_their_zeros(values: Any, expected: Any) -> None:
    assert datatypes.to_wire(values).tolist() == expected


@pytest.mark.parametrize("values", [[1, "a"], [np.nan, "a"], [None, "a"], [[1.5], ["x"]]], ids=str)
def test_numbers_among_texts_are_refused_in_lists_too(values: Any) -> None:
    with pytest.raises(errors.ModelRaised, match="no datatype for"):
        datatypes.to_wire(values)


def test_nothing_is_no_number() -> None:
    with pytest.raises(errors.ModelRaised, match="None where a tensor belongs"):
        datatypes.to_wire(None)


def test_masked_values_are_refused_and_the_rest_is_taken() -> None:
    masked: Any = np.ma.MaskedArray
    numbers = np.array([-1.0, 2.0])
    with pytest.raises(errors.ModelRaised, match="masked"):
        datatypes.to_wire(masked(numbers, numbers < 0))
    assert datatypes.to_wire(masked(numbers, numbers < -5)).tolist() == [-1, 2]


def test_numbers_of_the_other_byte_order_are_the_same_numbers() -> None:
    wire = datatypes.to_wire(np.array([1.5, -2], ">f4"))
    assert wire.tolist() == [1.5, -2]
    assert datatypes.datatype_of(wire.dtype) == "FP32"


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, requires_grad=True),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2).to_sparse(),
        torch.fft.ifft(torch.tensor([2.0, 0]).to(torch.complex64)).conj().real,
        torch.nn.Parameter(torch.ones(2)),
    ],
    ids=["grad", "bfloat16", "sparse", "conjugate", "parameter"],
)
def test_tensors_of_torch_are_arrays(tensor: Any) -> None:
    wire = datatypes.to_wire(tensor)
    expected = np.ones(2, np.float32)
    np.testing.assert_array_equal(wire, expected, strict=True)


def test_what_numpy_cannot_convert_is_the_model_s_fault() -> None:
    with pytest.raises(errors.ModelRaised, match="form no tensor"):
        datatypes.to_wire([torch.ones(2, requires_grad=True)])
