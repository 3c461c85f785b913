from __future__ import annotations

from typing import Any

import pytest

from meshserve.config import diagnostics


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("models", 2, "uri"), "models[2].uri"),
        (("pools", "a", "memory"), "pools.a.memory"),
        ((0, "x"), "[0].x"),
        ((), ""),
    ],
)
def test_fields_as_users_write_them(path: Any, text: str) -> None:
    assert diagnostics.field(path) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ("a", "'a'"),
        (None, "nothing"),
        ({"a": 1}, "a mapping"),
        ([1], "a list"),
        (1.5, "1.5"),
    ],
)
def test_values_in_a_sentence(value: Any, text: str) -> None:
    assert diagnostics.shown(value) == text


def test_long_values_are_cut() -> None:
    assert diagnostics.shown("x" * 100) == "'" + "x" * 58 + "…"


def test_the_nearest_word_is_suggested() -> None:
    assert diagnostics.did_you_mean("runtim", ["uri", "runtime"]) == "; did you mean 'runtime'?"


def test_no_word_is_near() -> None:
    assert diagnostics.did_you_mean("zzz", ["uri", "runtime"]) == ""


def test_without_a_near_word_all_are_listed() -> None:
    assert diagnostics.hint("zzz", ["uri", "runtime"]) == "; there are: uri, runtime"
