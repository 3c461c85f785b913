from __future__ import annotations

import types
from pathlib import Path

import pytest

from compat import cases, catalogue, world

NOWHERE = world.World("nowhere", Path(), {})


@cases.swept("P", "kind", "docs", ("a", "b"), (1, 2))
def add_up(asked: world.World, word: str, number: int) -> None:
    """Fail for one combination."""
    assert asked is NOWHERE
    if (word, number) == ("b", 2):
        raise AssertionError(f"{word}{number}")


@cases.both("P", "kind", "docs")
def speak(_: world.World, protocol: str) -> None:
    """Fail without words."""
    if protocol != "http":
        raise AssertionError


def module_of(*checks: object) -> types.ModuleType:
    module = types.ModuleType("written")
    for number, check in enumerate(checks):
        setattr(module, f"check{number}", check)
    return module


def test_a_sweep_makes_a_case_for_each_combination() -> None:
    outcomes = list(cases.run(NOWHERE, cases.in_module(module_of(add_up, "other"))))
    assert [outcome.case.name for outcome in outcomes] == [
        "add up: a, 1",
        "add up: a, 2",
        "add up: b, 1",
        "add up: b, 2",
    ]
    assert [outcome.failure for outcome in outcomes] == ["", "", "", "AssertionError: b2"]


def test_a_failure_without_words_shows_its_line() -> None:
    http, grpc = cases.run(NOWHERE, cases.in_module(module_of(speak)))
    assert http.failure == ""
    assert grpc.case.title == "P, kind, speak: grpc"
    assert grpc.failure == "AssertionError: not so: raise AssertionError"


def test_all_cases_have_names_of_their_own() -> None:
    titles = [case.title for case in catalogue.all_cases()]
    assert len(set(titles)) == len(titles)


def test_the_quick_ones_need_nothing() -> None:
    quick = catalogue.quick_cases()
    assert len(quick) > 200
    assert not [case for case in quick if case.needs]


@pytest.mark.parametrize("name", sorted(world.ENVIRONMENTS))
def test_each_other_client_has_a_program(name: str) -> None:
    assert (world.HERE / "peers" / world.PROGRAMS[name]).is_file()
    assert [case for case in catalogue.all_cases() if case.needs == name]
