from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.protocol import inference, tensors
from meshserve.runtimes import datatypes, tabular
from tests.runtimes import contract

CALLS: list[str] = []


def total(rows: Any) -> Any:
    CALLS.append("total")
    if (rows < 0).any():
        raise ValueError("negative\nand more")
    return rows.sum(1)


def sign(rows: Any) -> Any:
    CALLS.append("sign")
    return np.where(rows.sum(1) > 2, "big", "small")


ESTIMATOR = tabular.Estimator({"total": total, "sign": sign}, 3, ("FP64", "FP32"), "toy")


@pytest.fixture
def loaded() -> Any:
    loaded = tabular.verify(ESTIMATOR, contract.spec())
    CALLS.clear()
    return loaded


def test_the_signature_is_found(loaded: model_runtime.LoadedModel) -> None:
    outputs = (model.TensorSpec("total", "FP64", (-1,)), model.TensorSpec("sign", "BYTES", (-1,)))
    assert loaded.signature == model.Signature(
        (model.TensorSpec("input", "FP64", (-1, 3)),),
        outputs,
        has_batch_dimension=True,
        can_join=True,
        platform="toy",
        table=model.Table(),
        has_open_outputs=True,
    )


def test_only_requested_outputs_are_computed(loaded: model_runtime.LoadedModel) -> None:
    given = loaded.predict({"input": np.ones((2, 3))}, ["sign"])
    assert given["sign"].tolist() == [b"big", b"big"]
    assert CALLS == ["sign"]


def test_values_that_are_refused_are_the_caller_s_fault(loaded: model_runtime.LoadedModel) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"^negative$"):
        loaded.predict({"input": -np.ones((1, 3))}, ())


def test_a_model_that_has_answered_refuses_what_it_fails_with() -> None:
    def broken(rows: np.ndarray) -> np.ndarray:
        if len(rows) > 1:
            raise RuntimeError("broken")
        return np.asarray(rows[:, 0])

    loaded = tabular.verify(replace(ESTIMATOR, functions={"y": broken}), contract.spec())
    assert not loaded.signature.can_join
    with pytest.raises(errors.InvalidRequest, match="RuntimeError: broken"):
        loaded.predict({"input": np.ones((2, 3))}, ())


def test_a_model_that_never_answered_may_be_at_fault_itself() -> None:
    def broken(_rows: np.ndarray) -> np.ndarray:
        raise RuntimeError("broken")

    expected = (model.TensorSpec("y", "FP64", (-1,)),)
    estimator = replace(ESTIMATOR, functions={"y": broken}, expected=expected)
    with pytest.raises(errors.ModelRaised, match="RuntimeError: broken"):
        tabular.verify(estimator, contract.spec()).predict({"input": np.ones((2, 3))}, ())


def first_column(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows[:, 0])


def ask(loaded: tabular.TabularModel, datatype: str, rows: np.ndarray) -> np.ndarray:
    call = inference.InferCall("", inputs={"x": tensors.WireTensor(datatype, rows)})
    return loaded.predict(inference.check_inputs(call, loaded.signature), ())["y"]


KEEPING = replace(ESTIMATOR, functions={"y": first_column}, keeps_datatypes=True)


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64", "UINT8", "BOOL", "FP16"])
def test_numbers_reach_a_library_as_they_came(datatype: str) -> None:
    rows = np.ones((2, 3), datatypes.NUMPY_TYPES[datatype])
    assert ask(tabular.verify(KEEPING, contract.spec()), datatype, rows).dtype == rows.dtype


def test_a_declared_datatype_is_kept_instead() -> None:
    declared = (model.TensorSpec("x", "FP32", (-1, 3)),)
    loaded = tabular.verify(KEEPING, contract.spec(inputs=declared))
    assert ask(loaded, "INT64", np.ones((2, 3), np.int64)).dtype == np.float32


@pytest.mark.parametrize(("taken", "other"), [("FP64", "FP32"), ("FP32", "FP64")])
def test_a_model_that_takes_one_datatype_alone_gets_it(taken: str, other: str) -> None:
    def choosy(rows: np.ndarray) -> np.ndarray:
        if rows.dtype != datatypes.NUMPY_TYPES[taken]:
            raise TypeError("another datatype")
        return np.asarray(rows[:, 0])

    loaded = tabular.verify(replace(KEEPING, functions={"y": choosy}), contract.spec())
    assert loaded.signature.inputs[0].datatype == taken
    for datatype in (taken, other):
        rows = np.full((2, 3), 2, datatypes.NUMPY_TYPES[datatype])
        assert ask(loaded, datatype, rows).tolist() == [2, 2]


def test_an_estimator_that_does_not_predict_is_refused() -> None:
    with pytest.raises(
        errors.LoadFailed, match=r"does not predict from FP64 rows of shape \[-1, 3\]: 'nothing'"
    ):
        tabular.verify(replace(ESTIMATOR, functions={"y": _refuse}), contract.spec())


def _refuse(_rows: Any) -> None:
    raise KeyError("nothing")


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([("x", "FP64", (-1, 3)), ("y", "FP64", (-1, 3))], "one matrix of features, but 2 inputs"),
        ([("x", "INT8", (-1, 3))], "declared INT8, but the model takes FP64, FP32"),
        ([("x", "FP64", (-1, 4))], r"the model has \[-1, 3\]"),
        ([("x", "FP65", (-1, 3))], "does not exist"),
    ],
)
def test_an_untrue_declaration_is_refused(inputs: Any, reason: str) -> None:
    declared = tuple(model.TensorSpec(*triple) for triple in inputs)
    with pytest.raises(errors.LoadFailed, match=reason):
        tabular.verify(ESTIMATOR, contract.spec(inputs=declared))


def test_an_unknown_width_is_free_unless_it_is_declared() -> None:
    unknown = replace(ESTIMATOR, columns=None)
    (free,) = tabular.verify(unknown, contract.spec()).signature.inputs
    assert free.shape == (-1, -1)
    declared = (model.TensorSpec("x", "FP64", (-1, 5)),)
    assert tabular.verify(unknown, contract.spec(inputs=declared)).signature.inputs == declared


def picky(rows: Any) -> Any:
    if (rows[:, 0] != 77).any():
        raise ValueError("only 77")
    return rows[:, 1:]


def moody(rows: Any) -> Any:
    return rows[:, 0] if (rows % 1).any() else rows[:, 0].astype(np.int64)


def test_outputs_are_learned_from_the_first_rows_that_are_taken() -> None:
    loaded = tabular.verify(replace(ESTIMATOR, functions={"y": picky}), contract.spec())
    assert (loaded.signature.outputs, loaded.probe) == ((), None)
    assert not loaded.signature.can_join
    with pytest.raises(errors.InvalidRequest, match="only 77"):
        loaded.predict({"input": np.ones((1, 3))}, ())
    rows = np.array([[77, 1, 2], [77, 3, 4]])
    assert loaded.predict({"input": rows}, ())["y"].tolist() == [[1, 2], [3, 4]]
    assert loaded.predict({"input": rows[:1]}, ("y",))["y"].tolist() == [[1, 2]]
    with pytest.raises(errors.InvalidRequest, match="no output 'z'; it has: y"):
        loaded.predict({"input": rows}, ("z",))


def test_an_output_that_is_not_declared_has_its_own_datatype_each_time() -> None:
    free = tabular.verify(replace(ESTIMATOR, functions={"y": moody}), contract.spec())
    assert free.predict({"input": np.ones((1, 3))}, ())["y"].dtype == np.int64
    fractions = free.predict({"input": np.full((1, 3), 0.5)}, ())["y"]
    assert (fractions.tolist(), str(fractions.dtype)) == ([0.5], "float64")
    declared = (model.TensorSpec("y", "FP64", (-1,)),)
    bound = tabular.verify(
        replace(ESTIMATOR, functions={"y": moody}), contract.spec(outputs=declared)
    )
    assert bound.predict({"input": np.ones((1, 3))}, ())["y"].dtype == np.float64
    assert not bound.signature.has_open_outputs


def test_a_column_of_another_kind_is_the_caller_s_fault() -> None:
    form = tabular.ColumnForm(("FP64", "BYTES"), dict)

    def add(columns: Any) -> Any:
        if columns["age"][0] == 99:
            raise TypeError("a bug")
        return columns["age"] + [len(city) for city in columns["city"]]

    functions = {"y": add}
    estimator = replace(
        ESTIMATOR, functions=functions, columns=2, names=("age", "city"), by_column=form
    )
    loaded = tabular.verify(estimator, contract.spec())
    texts = np.array([b"a", b"b"], object)
    with pytest.raises(errors.InvalidRequest, match=r"column 'age' takes numbers, BYTES came: "):
        loaded.predict({"age": texts, "city": texts}, ())
    with pytest.raises(errors.InvalidRequest, match=r"column 'city' takes texts, INT64 came: "):
        loaded.predict({"age": np.ones(2), "city": np.arange(2)}, ())
    with pytest.raises(errors.InvalidRequest, match="TypeError: a bug"):
        loaded.predict({"age": np.array([99.0, 1]), "city": texts}, ())
