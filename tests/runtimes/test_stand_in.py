from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from meshserve.runtimes import stand_in

NAME = "only_in_another_server"


@pytest.fixture
def shown() -> stand_in.StandIn:
    return stand_in.StandIn(
        NAME, lambda: {name: ModuleType(name) for name in (NAME, f"{NAME}.part")}
    )


def test_the_modules_are_there_only_while_they_are_held(
    shown: stand_in.StandIn, tmp_path: Path
) -> None:
    with shown.held():
        with shown.held():
            pass
        assert {NAME, f"{NAME}.part"} <= set(sys.modules)
    assert not [name for name in sys.modules if name.startswith(NAME)]
    (tmp_path / "model.py").write_text("import os")
    with shown.held_for(tmp_path):
        assert NAME not in sys.modules
    (tmp_path / "other.py").write_text(f"import {NAME}")
    with shown.held_for(tmp_path):
        assert NAME in sys.modules


def test_modules_that_could_not_be_made_are_made_for_the_next_user() -> None:
    outcomes: list[dict[str, ModuleType] | None] = [None, {NAME: ModuleType(NAME)}]

    def make() -> dict[str, ModuleType]:
        modules = outcomes.pop(0)
        if modules is None:
            raise ImportError("a library is missing")
        return modules

    shown = stand_in.StandIn(NAME, make)
    with pytest.raises(ImportError, match="is missing"), shown.held():
        pass
    with shown.held():
        assert NAME in sys.modules
    assert NAME not in sys.modules


def test_an_installed_module_is_left_alone(
    shown: stand_in.StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{NAME}.py").write_text("REAL = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    with shown.held():
        assert NAME not in sys.modules
