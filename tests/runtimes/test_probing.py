from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from meshserve.core.values import model
from meshserve.runtimes import datatypes, probing

X = model.TensorSpec("x", "FP32", (-1, 4))


def out(shape: tuple[int, ...], word: Any = "FP32") -> Any:
    return (model.TensorSpec("y", word, shape),)


def of(function: Any, *inputs: Any) -> Any:
    """What is found of a function of `x`."""
    return probing.probe(lambda feed: {"y": function(feed["x"])}, inputs or (X,))


@pytest.mark.parametrize(
    ("function", "shape", "batchable"),
    [
        (lambda x: x * 2, (-1, 4), True),
        (lambda x: x.sum(1), (-1,), True),
        (lambda x: x - x.mean(0), (-1, 4), False),
        (lambda x: x.sum(0), (4,), False),
        (lambda x: x.sum(0, keepdims=True), (1, 4), False),
        (lambda x: np.float32(x.sum()).reshape(()), (), False),
        (lambda x: x.reshape(-1), (-1,), False),
        (lambda x: x.reshape(4, -1), (4, -1), False),
    ],
)
def test_outputs_and_batches_are_recognised(
    function: Any, shape: tuple[int, ...], batchable: Any
) -> None:
    probed = of(function)
    assert probed.outputs == out(shape)
    assert probed.is_batchable == batchable


def test_a_model_of_one_row_only_is_no_batch() -> None:
    def one_row(x: Any) -> Any:
        if len(x) != 1:
            raise ValueError(len(x))
        return x

    assert of(one_row).is_batchable is False


def test_free_dimensions_are_followed_and_the_first_size_that_runs_is_kept() -> None:
    def wide(x: Any) -> Any:
        if x.shape[1] < 8:
            raise ValueError("too narrow")
        return np.concatenate([x, x], axis=1)

    probed = of(wide, model.TensorSpec("x", "FP32", (-1, -1)))
    assert probed.outputs == out((-1, -1))
    assert probed.inputs["x"].shape == (1, 32)


def test_a_model_that_never_runs_fails_with_its_own_reason() -> None:
    def refuse(_x: Any) -> None:
        raise KeyError("never")

    with pytest.raises(probing.ProbeFailed) as failed:
        of(refuse)
    assert isinstance(failed.value.cause, KeyError)


def test_a_fixed_input_beside_a_free_one_is_no_batch() -> None:
    weights = model.TensorSpec("w", "FP32", (4,))
    probed = probing.probe(lambda feed: {"y": feed["x"] @ feed["w"]}, (X, weights))
    assert probed.outputs == out((-1,))
    assert not probed.is_batchable
    assert probed.inputs["w"].shape == (4,)


def test_a_model_without_inputs_is_run_all_the_same() -> None:
    probed = probing.probe(lambda _: {"y": np.ones(2, np.float32)}, ())
    assert probed.outputs == out((2,))
    assert not probed.is_batchable


def test_missing_values_may_come_out() -> None:
    assert of(lambda x: x * np.float32(np.nan)).is_batchable


@pytest.mark.parametrize("word", sorted(datatypes.NUMPY_TYPES))
def test_every_datatype_can_be_made_up_the_same_each_time(word: Any) -> None:
    specs = (model.TensorSpec("x", word, (-1, 3, -1)),)
    first, second = probing.make_up(specs, 2)["x"], probing.make_up(specs, 2)["x"]
    assert first.dtype == datatypes.NUMPY_TYPES[word]
    assert first.shape == (probing.ROWS, 3, 2)
    assert np.array_equal(first, second)
    assert len(set(first.ravel().tolist())) > 1


def test_integers_are_zeros_where_others_are_refused() -> None:
    def bags(feed: probing.Arrays) -> probing.Arrays:
        if feed["offsets"][:1].any():
            raise ValueError("offsets[0] has to be 0")
        return {"y": np.ones((len(feed["offsets"]), 2), np.float32)}

    inputs = [model.TensorSpec(name, "INT64", (-1,)) for name in ("words", "offsets")]
    probed = probing.probe(bags, inputs)
    assert probed.outputs == out((-1, 2))
    assert not probed.is_batchable


def picky(is_right: Any) -> Any:
    """A model that takes nothing but what is right, and doubles it."""

    def function(x: Any) -> Any:
        if not is_right(x):
            raise ValueError("not so")
        return x * 2

    return function


@pytest.mark.parametrize(
    "is_right",
    [
        lambda x: (np.diff(x.ravel()) > 0).all(),
        lambda x: (x.sum(-1) == 1).all() and set(x.ravel()) <= {0, 1},
        lambda x: (x >= 1).all(),
        lambda x: len(x) > 1,
    ],
    ids=["sorted", "one hot", "positive", "several rows"],
)
def test_values_of_other_styles_are_tried_but_prove_nothing_of_rows(is_right: Any) -> None:
    probed = of(picky(is_right))
    assert probed.outputs[0].datatype == "FP32"
    assert not probed.is_batchable


def test_the_first_refusal_is_told() -> None:
    with pytest.raises(probing.ProbeFailed, match="not so"):
        of(picky(lambda _x: False))


def test_a_sample_is_run_in_place_of_made_up_inputs() -> None:
    words = np.array([[b"dog"], [b"cat"], [b"horse"]], object)

    def run(feed: Any) -> Any:
        if not {*feed["x"].ravel()} <= {*words.ravel()}:
            raise KeyError("unknown")
        return {"y": np.vectorize(len)(feed["x"])}

    spec = model.TensorSpec("x", "BYTES", (-1, 1))
    probed = probing.probe(run, [spec], {"x": words})
    assert probed.outputs == out((-1, -1), "INT64")
    assert probed.is_batchable
    assert probed.inputs["x"].tolist() == [[b"dog"]]
    single = probing.probe(run, [spec], {"x": words[:1]})
    assert not single.is_batchable
    with pytest.raises(probing.ProbeFailed, match="unknown"):
        probing.probe(run, [spec], {"x": np.array([[b"emu"]], object)})


def test_sizes_may_be_related() -> None:
    inputs = [model.TensorSpec("x", "FP32", (-1, 3)), model.TensorSpec("y", "FP32", (-1,))]

    def run(feed: Any) -> Any:
        return {"z": feed["x"].sum(1) + feed["y"].reshape(-1, 5).sum(1)}

    probed = probing.probe(
        run, inputs, sizes_of=lambda rows, _size: {"x": (rows, 3), "y": (5 * rows,)}
    )
    assert {name: array.shape for name, array in probed.inputs.items()} == {"x": (1, 3), "y": (5,)}
    assert [spec.shape for spec in probed.outputs] == [(-1,)]
    assert not probed.is_batchable
