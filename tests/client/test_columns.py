from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from meshserve import errors
from meshserve.client import arrays, columns, conversation
from meshserve.core.values import model
from meshserve.protocol import inference, model_description
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.runtimes import sklearn, tabular
from tests.runtimes import contract

NA = pd.NA


@pytest.mark.parametrize(
    ("values", "datatype", "right"),
    [
        ([1, 2], "INT64", [1, 2]),
        ([1, 2.5], "FP64", [1, 2.5]),
        ([True, False], "BOOL", [True, False]),
        (["ü", "b\0"], "BYTES", ["ü".encode(), b"b\0"]),
        (np.array([1], np.int8), "INT8", [1]),
        (pd.Series([1, 2], dtype="int16"), "INT16", [1, 2]),
        (pd.Series([0.5], dtype="float32"), "FP32", [0.5]),
        (pd.Series(["a", None]), "BYTES", [b"a", None]),
        (pd.Series(["a", np.nan], dtype=object), "BYTES", [b"a", None]),
        (pd.Series(["a", NA], dtype="string"), "BYTES", [b"a", None]),
        (pd.Series(["x", "y", "x"], dtype="category"), "BYTES", [b"x", b"y", b"x"]),
        (pd.Series([7, 9], dtype="category"), "INT64", [7, 9]),
        (pd.Series([1, 2], dtype="Int64"), "INT64", [1, 2]),
        (pd.Series([True, False], dtype="boolean"), "BOOL", [True, False]),
        (pd.Series([True, 2], dtype=object), "FP64", [1, 2]),
    ],
    ids=str,
)
def test_values_have_datatypes_of_their_own(values: Any, datatype: str, right: Any) -> None:
    given = columns.natural("c", values)
    assert (given.datatype, given.array.tolist()) == (datatype, right)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, NA], dtype="Int64"),
        pd.Series([1, None], dtype=object),
        pd.Series([True, NA], dtype="boolean"),
        pd.Series([1.0, np.nan]),
        pd.Series([1, np.nan], dtype="category"),
    ],
    ids=str,
)
def test_missing_numbers_are_nan(values: Any) -> None:
    given = columns.natural("c", values)
    assert given.datatype == "FP64"
    np.testing.assert_array_equal(given.array, [1, np.nan])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (pd.Series(pd.to_datetime(["2024-01-01"])), r"holds datetime64\[.*astype\(\"int64\"\)"),
        (pd.Series(pd.to_datetime(["2024-01-01"]), dtype=object), "types Timestamp"),
        (pd.Series([dt.date(2024, 1, 1)]), "types date"),
        (pd.Series(pd.to_timedelta([1], "D")), r"holds timedelta64"),
        ([decimal.Decimal("1.5")], "types Decimal"),
        (["a", 1], "types int, str"),
        ([1j], "complex128"),
        ([[1], [1, 2]], "different lengths"),
        ([2**70, 1], "beyond 64 bits"),
        (pd.Series([2**53 + 1, None], dtype=object), "whole numbers that FP64 can't"),
    ],
    ids=str,
)
def test_what_no_tensor_holds_is_refused(values: Any, reason: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=reason):
        columns.natural("c", values)


def test_lists_of_fractions_are_what_the_library_makes_of_them() -> None:
    assert columns.natural("x", [0.1], "FP32").datatype == "FP32"
    assert columns.natural("x", np.array([0.1]), "FP32").datatype == "FP64"


def test_a_frame_with_two_columns_of_one_name_is_refused() -> None:
    with pytest.raises(errors.InvalidRequest, match="two columns of one name"):
        columns.of_frame(pd.DataFrame([[1, 2]], columns=["a", "a"]))


FRAME = pd.DataFrame(
    {
        "age": [20, 30, 40, 50],
        "income": [1.5, np.nan, 0.5, 2.5],
        "city": ["a", None, "b", "a"],
        "is_new": [True, False, True, False],
        "size": pd.Series(["s", "m", "s", "m"], dtype="category"),
    }
)


def pipeline(frame: pd.DataFrame) -> Any:
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    encoder = ColumnTransformer(
        [
            ("texts", texts, ["city"]),
            ("sizes", OneHotEncoder(), ["size"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
            ("rest", "passthrough", ["is_new"]),
        ]
    )
    return make_pipeline(encoder, LogisticRegression()).fit(frame, [0, 1, 1, 0])


def served(fitted: Any) -> tabular.TabularModel:
    return tabular.verify(sklearn._estimator(fitted, 1), contract.spec())


def metadata_of(signature: model.Signature) -> conversation.ModelMetadata:
    shown = model_description.ServedModel(model.ModelId("m"), ("1",), signature, "sklearn")
    steps = conversation.Conversation().metadata("m", "")
    next(steps)
    try:
        steps.send(model_description.metadata_message(shown))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("more was asked")


def ask(loaded: tabular.TabularModel, inputs: Any) -> Any:
    """Return what a worker answers to the message of a client."""
    metadata = metadata_of(loaded.signature)
    steps = conversation._infer(conversation.PredictRequest("m", inputs), metadata)
    sent = pb.ModelInferRequest.FromString(next(steps).request.SerializeToString())
    call = inference.call_from_message(sent)
    return loaded.predict(inference.check_inputs(call, loaded.signature), ())


def test_a_frame_is_answered_as_its_own_library_does() -> None:
    fitted = pipeline(FRAME)
    loaded = served(fitted)
    right = fitted.predict_proba(FRAME)
    np.testing.assert_array_equal(ask(loaded, FRAME)["predict_proba"], right)
    shuffled = FRAME[["size", "city", "age", "is_new", "income"]]
    np.testing.assert_array_equal(ask(loaded, shuffled)["predict_proba"], right)
    lists = {name: FRAME[name].tolist() for name in FRAME.columns}
    np.testing.assert_array_equal(ask(loaded, lists)["predict_proba"], right)
    with pytest.raises(errors.InvalidRequest, match="'income' are missing"):
        ask(loaded, FRAME.drop(columns="income"))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_frame_of_numbers_is_the_matrix_of_a_model_that_knows_its_columns() -> None:
    numbers = FRAME[["age", "is_new"]].astype(float)
    fitted = LogisticRegression().fit(numbers, [0, 1, 1, 0])
    right = fitted.predict_proba(numbers)
    assert served(fitted).signature.table == model.Table(("age", "is_new"), keeps_datatypes=True)
    np.testing.assert_array_equal(ask(served(fitted), numbers)["predict_proba"], right)
    np.testing.assert_array_equal(
        ask(served(fitted), numbers.to_numpy().tolist())["predict_proba"], right
    )


def test_a_frame_without_names_is_a_matrix() -> None:
    rows = np.array([[1.0, 2], [3, 4], [5, 7], [9, 8]])
    fitted = LogisticRegression().fit(rows, [0, 1, 1, 0])
    right = fitted.predict_proba(rows)
    np.testing.assert_array_equal(ask(served(fitted), pd.DataFrame(rows))["predict_proba"], right)
    with pytest.raises(errors.InvalidRequest, match="takes one matrix"):
        ask(served(fitted), pd.DataFrame(rows, columns=["a", "b"]))


def test_columns_of_a_model_with_declared_inputs_are_cast_and_shaped() -> None:
    specs = (model.TensorSpec("age", "FP32", (-1, 1)), model.TensorSpec("city", "BYTES", (-1, 1)))
    taken = arrays.TakenInputs(specs)
    frame = FRAME[["city", "age"]].iloc[2:]
    sent = {spec.name: array for spec, array in arrays.to_tensors("m", frame, taken)}
    assert sent["age"].dtype == np.float32
    assert sent["age"].tolist() == [[40], [50]]
    assert sent["city"].tolist() == [[b"b"], [b"a"]]
    with pytest.raises(errors.InvalidRequest, match="no input 'income'"):
        list(arrays.to_tensors("m", FRAME[["income"]], arrays.TakenInputs(specs)))


def test_a_model_that_declares_nothing_gets_values_as_they_are() -> None:
    seen = arrays.TakenInputs((model.TensorSpec("x", "INT64", (-1,)),), is_loose=True)
    ((spec, array),) = arrays.to_tensors("m", [0.5], seen)
    assert (spec.name, spec.datatype, array.tolist()) == ("x", "FP64", [0.5])
    with pytest.raises(errors.InvalidRequest, match="undeclared inputs: give a dict"):
        list(arrays.to_tensors("m", [0.5], arrays.TakenInputs((), is_loose=True)))
