from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import model
from meshserve.storage import model_metadata

NUMBERS = st.lists(st.integers(0, 10**6).map(str), unique=True)


def test_versions_by_policy() -> None:
    versions = ["2", "10", "1"]
    assert model_metadata.VersionPolicy().choose(versions) == versions
    assert model_metadata.VersionPolicy(latest=2).choose(versions) == ["2", "10"]
    assert model_metadata.VersionPolicy(listed=frozenset(("1", "7"))).choose(versions) == ["1"]


@given(NUMBERS, st.integers(1, 5))
def test_the_newest_are_the_newest(versions: list[str], count: int) -> None:
    chosen = model_metadata.VersionPolicy(latest=count).choose(versions)
    left = [int(version) for version in versions if version not in chosen]
    assert len(chosen) == min(count, len(versions))
    assert all(int(version) > other for version in chosen for other in left)


def test_a_tensor() -> None:
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
def test_a_wrong_tensor_is_refused(
    name: str, datatype: str, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        model_metadata.tensor(name, datatype, shape)


@pytest.mark.parametrize("name", ["a", "ein Modell", "模型", "a.b-c_d"])
def test_good_names(name: str) -> None:
    model_metadata.check_name(name)


@pytest.mark.parametrize("name", ["", " a", "a/b", "a\nb", "a\0", "\x7f"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="can't be a model's name"):
        model_metadata.check_name(name)


def test_a_name_that_a_path_of_the_api_has_is_none() -> None:
    with pytest.raises(ValueError, match="nothing can be called 'stats'"):
        model_metadata.check_name("stats")
