from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools import module_facts

SOURCE = '''"""A module."""

import os


class Thing:
    """A thing."""

    def grow(self, by: int, how=None) -> int:
        """Return a number.

        It is bigger.
        """
        # A reason.
        if by:
            for step in range(by):
                print(step)
        elif how:
            pass
        return by

    def _hidden(self): ...


def test_nothing():
    assert True
'''


@pytest.fixture
def facts(tmp_path: Path) -> module_facts.ModuleFacts:
    path = tmp_path / "test_thing.py"
    path.write_text(SOURCE)
    return module_facts.read_module(path, "test_thing", {"test_thing"})


def test_lines_are_told_apart(facts: module_facts.ModuleFacts) -> None:
    assert (facts.lines, facts.code_lines, facts.comment_lines) == (26, 12, 1)


def test_a_functions_figures(facts: module_facts.ModuleFacts) -> None:
    grow = facts.functions[0]
    assert (grow.lines, grow.code_lines, grow.nesting) == (12, 7, 2)
    assert (grow.parameters, grow.slots, grow.annotated) == (2, 3, 2)
    assert (grow.public, grow.docstring_lines, grow.is_test) == (True, 3, False)


def test_private_functions_and_tests_are_known(facts: module_facts.ModuleFacts) -> None:
    _, hidden, test = facts.functions
    assert (hidden.public, hidden.is_test) == (False, False)
    assert test.is_test


def test_a_module_that_imports_the_world_is_not_free_of_it(
    facts: module_facts.ModuleFacts,
) -> None:
    assert not facts.io_free


@pytest.mark.parametrize(
    ("text", "habit"),
    [
        ("try:\n    f()\nexcept Exception:\n    pass", "broad_except"),
        ("try:\n    f()\nexcept:\n    pass", "broad_except"),
        ("time.sleep(1)", "sleeps"),
        ("def f(monkeypatch): ...", "mocks"),
        ("assert f()", "asserts"),
        ("@given(x)\ndef f(): ...", "given"),
    ],
)
def test_habits_are_counted(text: str, habit: str) -> None:
    assert module_facts.count_habits(ast.parse(text), ())[habit] == 1


def test_an_except_that_raises_again_is_not_broad() -> None:
    text = "try:\n    f()\nexcept Exception:\n    raise"
    assert module_facts.count_habits(ast.parse(text), ())["broad_except"] == 0


def test_comments_tell_what_is_unfinished_and_untyped() -> None:
    comments = ("# TODO: later", "# type: ignore[misc]")
    counts = module_facts.count_habits(ast.parse(""), comments)
    assert (counts["unfinished"], counts["type_ignore"]) == (1, 1)


@pytest.mark.parametrize(
    ("name", "is_vague"),
    [("utils", True), ("ModelManager", True), ("ModelIndex", False), ("catalog", False)],
)
def test_vague_names(name: str, is_vague: bool) -> None:
    assert module_facts.is_vague(name) == is_vague
