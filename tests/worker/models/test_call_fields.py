"""Values, parameters and errors that go between a worker and a model's process."""

from __future__ import annotations

import math

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.worker.models import call_fields


class Own(errors.LoadFailed):
    """An error of a plug-in."""


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (errors.MissingExtra("x"), {"error": ["MissingExtra", "x", None]}),
        (errors.Overloaded("y", retry_after_s=2.0), {"error": ["Overloaded", "y", 2.0]}),
        (Own("z"), {"error": ["LoadFailed", "z", None]}),
        (KeyError("k"), {"raised": "KeyError: 'k'"}),
        (SystemExit(3), {"raised": "SystemExit: 3"}),
        (OSError("\udcff.bin"), {"raised": "OSError: ?.bin"}),
        (errors.LoadFailed("\udcff.bin"), {"error": ["LoadFailed", "?.bin", None]}),
    ],
    ids=repr,
)
def test_errors_are_told_by_a_class_that_the_worker_knows(
    error: BaseException, fields: dict[str, object]
) -> None:
    assert call_fields.describe_error(error) == fields


def test_values_of_the_worker_arrive_equal() -> None:
    spec = model.ModelSpec(model.ModelId("m"), "u", options={"a": [1, None]})
    assert call_fields.unpack(call_fields.pack(spec, None)) == (spec, None)


@pytest.mark.parametrize(
    ("fields", "error_class"),
    [
        ({"error": ["MissingExtra", "x", None]}, errors.MissingExtra),
        ({"error": ["InvalidRequest", "x", 1.0]}, errors.InvalidRequest),
        ({"error": ["annotations", "x", None]}, errors.ModelRaised),
        ({"error": ["SystemExit", "x", None]}, errors.ModelRaised),
        ({"raised": "x"}, errors.ModelRaised),
    ],
    ids=str,
)
def test_an_error_is_raised_by_the_class_it_names_if_that_is_ours(
    fields: dict[str, object], error_class: type[errors.MeshError]
) -> None:
    with pytest.raises(error_class) as raised:
        call_fields.raise_error(fields)
    assert type(raised.value) is error_class
    assert raised.value.message == "x"


def test_an_answer_without_error_raises_nothing() -> None:
    call_fields.raise_error({})


def test_parameters_keep_numbers_that_json_lacks() -> None:
    answer = model_runtime.AnswerTensors({}, {"a": math.inf, "b": np.int64(3), "c": 2**70})
    assert call_fields.parameters(answer) == {
        "parameters": '[{"a": Infinity, "b": 3, "c": 1180591620717411303424}, {}]'
    }
    assert call_fields.parameters({}) == {}
