from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import model
from meshserve.storage import model_metadata

NUMBERS = st.lists(st.integers(0, 10**6).map(str), unique=True)


def test_versions_by_policy():
    there = ["2", "10", "1"]
    assert model_metadata.Versions().chosen(there) == there
    assert model_metadata.Versions(latest=2).chosen(there) == ["2", "10"]
    assert model_metadata.Versions(listed=frozenset(("1", "7"))).chosen(there) == ["1"]


@given(NUMBERS, st.integers(1, 5))
def test_the_newest_are_the_newest(there, count):
    chosen = model_metadata.Versions(latest=count).chosen(there)
    left = [int(version) for version in there if version not in chosen]
    assert len(chosen) == min(count, len(there))
    assert all(int(version) > other for version in chosen for other in left)


def test_a_tensor():
    assert model_metadata.tensor("x", "FP32", [-1, 4]) == model.TensorSpec("x", "FP32", (-1, 4))


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "words"),
    [
        ("", "FP32", [1], "no name"),
        (None, "FP32", [1], "no name"),
        ("x", "FLOAT", [1], "not a datatype"),
        ("x", 1, [1], "not a datatype"),
    ]
    + [("x", "FP32", shape, "not a shape") for shape in (None, "1", [-2], ["1"], [1.5])],
)
def test_what_is_no_tensor_is_said(name, datatype, shape, words):
    with pytest.raises(ValueError, match=words):
        model_metadata.tensor(name, datatype, shape)


@pytest.mark.parametrize("name", ["a", "ein Modell", "模型", "a.b-c_d"])
def test_good_names(name):
    assert model_metadata.check_name(name) == name


@pytest.mark.parametrize("name", ["", " a", "a/b", "a\nb", "a\0", "\x7f"])
def test_bad_names(name):
    with pytest.raises(ValueError, match="can't be a model's name"):
        model_metadata.check_name(name)
