from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from meshserve.core.values import model
from meshserve.runtimes import row_proof

Array = np.ndarray
X = (model.TensorSpec("x", "FP32", (-1, 4)),)
PROBE = {"x": np.ones((1, 4), np.float32)}


def difference(function: Callable[[Array], Array]) -> str | None:
    return row_proof.find_difference(lambda feed: {"y": function(feed["x"])}, X, PROBE, 256)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2,
        lambda x: x.cumsum(1),
        lambda x: (x > 0).sum(1),
        lambda x: x @ np.full((4, 300), 0.1, np.float32),
    ],
)
def test_rows_that_are_apart_are_shown(function: Callable[[Array], Array]) -> None:
    assert difference(function) is None


def follow(x: Array) -> Array:
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.cumsum(0),
        lambda x: x - x.mean(0),
        lambda x: x / 255 if x.max() > 100 else x,
        lambda x: np.nan_to_num(x) if np.isnan(x).any() else x + 1,
        lambda x: x[::-1],
        lambda x: x[:1],
        lambda x: x if len(x) > 1 else x + 1,
        lambda x: x.reshape(-1),
        lambda x: x + len(x) // 8,
        lambda x: x + min(len(x), 5),
        lambda x: x * (1 + (len(x) > 100)),
        lambda x: x / np.abs(x).max() if (x > 0).all() else x,
        follow,
    ],
)
def test_rows_that_mix_are_found(function: Callable[[Array], Array]) -> None:
    assert difference(function)


def test_inputs_are_independent_of_each_other() -> None:
    inputs = (*X, model.TensorSpec("z", "FP32", (-1, 4)))

    def nearest(feed: row_proof.Arrays) -> row_proof.Arrays:
        apart = ((feed["x"][:, None] - feed["z"][None]) ** 2).sum(2)
        return {"y": apart.argmin(1)}

    assert row_proof.find_difference(nearest, inputs, PROBE | {"z": PROBE["x"]})


def test_inputs_with_unequal_numbers_of_rows_have_no_batch() -> None:
    inputs = (*X, model.TensorSpec("z", "FP32", (-1, 4)))
    feeds = PROBE | {"z": PROBE["x"]}
    assert (
        row_proof.find_difference(lambda feed: {"y": feed["x"] + feed["z"]}, inputs, feeds) is None
    )
    assert row_proof.find_difference(lambda feed: {"y": feed["x"]}, inputs, feeds) is None

    def add_first(feed: row_proof.Arrays) -> row_proof.Arrays:
        return {"y": feed["x"] + 0.0001 * feed["z"][: len(feed["x"])]}

    unequal = row_proof.find_difference(add_first, inputs, feeds)
    assert unequal == row_proof.TAKES_UNEQUAL


def test_no_more_rows_are_tried_than_will_be_joined() -> None:
    counts = set()

    def note(x: Array) -> Array:
        counts.add(len(x))
        return x

    assert row_proof.find_difference(lambda feed: {"y": note(feed["x"])}, X, PROBE, 20) is None
    assert counts == {1, 2, 4, 7, 16, 20}


def test_a_model_that_writes_to_its_inputs_is_seen_as_it_is() -> None:
    def add_one(feed: row_proof.Arrays) -> row_proof.Arrays:
        x = feed["x"] if feed["x"].flags.writeable else feed["x"].copy()
        x += 1
        return {"y": x}

    assert row_proof.find_difference(add_one, X, PROBE) is None


def test_a_model_that_takes_no_random_rows_shows_nothing() -> None:
    def refuse(_: Array) -> Array:
        raise ValueError("never")

    assert difference(refuse) == "the model takes no random inputs of several rows"


def test_rounding_is_no_difference() -> None:
    exact = np.array([1.0, 1e-9], np.float32)
    assert row_proof.is_close(exact, exact * np.float32(1.0001))
    assert not row_proof.is_close(exact, exact * np.float32(1.01))
    assert not row_proof.is_close(np.array([1]), np.array([2]))
    assert not row_proof.is_close(exact, exact[:1])
    assert row_proof.is_close(np.full(2, np.nan), np.full(2, np.nan))


@pytest.mark.parametrize("datatype", ["BYTES", "BF16", "BOOL", "INT8", "UINT64", "FP16"])
def test_every_datatype_has_random_rows(datatype: str) -> None:
    inputs = (model.TensorSpec("x", datatype, (-1, 2)),)
    seen = []

    def keep(feed: row_proof.Arrays) -> row_proof.Arrays:
        seen.append(feed["x"])
        return {"y": feed["x"]}

    assert row_proof.find_difference(keep, inputs, {"x": np.zeros((1, 2))}) is None
    assert any(len({*map(bytes, array.astype("S"))}) > 1 for array in seen if len(array) > 1)


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        ([1.0, 4.0], [1.0, 3.5], "differs by up to 0.5, and its values reach 4"),
        ([1.0, np.nan], [np.nan, 1.0], "has numbers in other places"),
        ([1.0], [1.0, 2.0], "has shape [1] alone, [2] joined"),
        ([1], [1.0], "is int64 alone, float64 joined"),
        ([b"a", b"secret"], [b"a", b"c"], "has other values in 1 of 2 places"),
        ([True], [False], "has other values in 1 of 1 places"),
    ],
)
def test_a_difference_is_told_without_the_values(
    left: list[object], right: list[object], words: str
) -> None:
    arrays = [
        np.array(values, np.object_ if isinstance(values[0], bytes) else None)
        for values in (left, right)
    ]
    assert row_proof.describe_difference(*arrays) == words
