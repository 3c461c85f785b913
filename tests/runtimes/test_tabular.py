from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import tabular
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
    )


def test_only_requested_outputs_are_computed(loaded: model_runtime.LoadedModel) -> None:
    given = loaded.predict({"input": np.ones((2, 3))}, ["sign"])
    assert given["sign"].tolist() == [b"big", b"big"]
    assert CALLS == ["sign"]


def test_values_that_are_refused_are_the_caller_s_fault(loaded: model_runtime.LoadedModel) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"^negative$"):
        loaded.predict({"input": -np.ones((1, 3))}, ())


def test_other_errors_are_the_model_s() -> None:
    def broken(rows: np.ndarray) -> np.ndarray:
        if len(rows) > 1:
            raise RuntimeError("broken")
        return np.asarray(rows[:, 0])

    loaded = tabular.verify(replace(ESTIMATOR, functions={"y": broken}), contract.spec())
    assert not loaded.signature.can_join
    with pytest.raises(RuntimeError):
        loaded.predict({"input": np.ones((2, 3))}, ())


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


def test_an_unknown_width_must_be_declared() -> None:
    unknown = replace(ESTIMATOR, columns=None)
    with pytest.raises(errors.LoadFailed, match="declare inputs"):
        tabular.verify(unknown, contract.spec())
    declared = (model.TensorSpec("x", "FP64", (-1, 5)),)
    assert tabular.verify(unknown, contract.spec(inputs=declared)).signature.inputs == declared
