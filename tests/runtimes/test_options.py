from __future__ import annotations

from typing import Any

import pytest

from meshserve import errors
from meshserve.runtimes import options
from tests.runtimes import contract


def read(**values: Any) -> Any:
    return options.Options(contract.spec(options=values))


def test_a_missing_option_has_its_default() -> None:
    nothing = read()
    assert nothing.count("n", 3) == 3
    assert nothing.flag("f", default=True)
    assert nothing.choice("c", ["a", "b"], "b") == "b"
    assert nothing.text("t", "x") == "x"
    assert nothing.texts("l") == ()


def test_options_are_read_by_type() -> None:
    given = read(n=0, f=False, c="a", t="y", l=["p", "q"])
    assert given.count("n", 3) == 0
    assert not given.flag("f", default=True)
    assert given.choice("c", ["a", "b"], "b") == "a"
    assert given.text("t", "x") == "y"
    assert given.texts("l") == ("p", "q")
    given.check_known()


def test_yaml_s_off_is_a_word_again() -> None:
    assert read(level=False).choice("level", ["on", "off"], "on") == "off"
    assert read(level=True).choice("level", ["on", "off"], "off") == "on"


@pytest.mark.parametrize(
    ("value", "get"),
    [
        (-1, lambda given: given.count("o", 1)),
        (True, lambda given: given.count("o", 1)),
        (1.5, lambda given: given.count("o", 1)),
        ("yes", lambda given: given.flag("o", default=False)),
        ("c", lambda given: given.choice("o", ["a", "b"], "a")),
        (3, lambda given: given.text("o", "")),
        ("a", lambda given: given.texts("o")),
        ([1], lambda given: given.texts("o")),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: Any, get: Any) -> None:
    with pytest.raises(errors.LoadFailed, match="option o: "):
        get(read(o=value))


def test_an_option_that_was_not_read_is_refused() -> None:
    given = read(threads=1, file="x")
    given.count("thread", 1)
    with pytest.raises(
        errors.LoadFailed, match="'threads' is not known here; did you mean 'thread'"
    ):
        given.check_known()


def test_all_known_words_are_listed_if_none_is_near() -> None:
    assert options.suggest("zzz", ["b", "a"]) == "; there is: a, b"
