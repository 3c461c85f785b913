from __future__ import annotations

import pytest

from meshserve.storage import repository_names


@pytest.mark.parametrize(
    ("name", "stem"), [("a.onnx", "a"), ("a.v2.tar.gz", "a.v2"), ("a.TGZ", "a"), ("a.b.ubj", "a.b")]
)
def test_names_without_their_endings(name: str, stem: str) -> None:
    assert repository_names.stem(name) == stem


@pytest.mark.parametrize(
    ("name", "of_triton", "of_others"),
    [
        ("1", "1", "1"),
        ("0", "0", "0"),
        ("0011", "", "11"),
        ("000", "", "0"),
        ("v2", "", ""),
        ("²", "", ""),
    ],
)
def test_a_version_is_a_whole_number(name: str, of_triton: str, of_others: str) -> None:
    assert repository_names.version_of(name, is_triton=True) == of_triton
    assert repository_names.version_of(name, is_triton=False) == of_others
