from __future__ import annotations

import io
import os
import pty
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from meshserve.cli import terminal


class Screen(io.StringIO):
    def isatty(self) -> Any:
        return True


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("COLUMNS", raising=False)
    return lambda value: monkeypatch.setenv("COLUMNS", value)


@pytest.mark.usefixtures("columns")
def test_a_pipe_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert terminal.out().width == terminal.PIPE_WIDTH


def test_columns_sets_the_width(monkeypatch: pytest.MonkeyPatch, columns: Any) -> None:
    columns("77")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert terminal.out().width == 77


def test_a_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch, columns: Any) -> None:
    columns("66")
    monkeypatch.setattr("sys.stdout", Screen())
    assert terminal.out().width == 66


def test_markup_in_names_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.out().print("[red]x[/red] :smile:")
    terminal.err().print("[b]")
    assert capsys.readouterr() == ("[red]x[/red] :smile:\n", "[b]\n")


def test_json_is_printed_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"b": 1, "a": ["é"]})
    assert capsys.readouterr().out == '{"b":1,"a":["é"]}\n'


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The far end of a terminal that is this process's standard input."""
    near, far = pty.openpty()
    with os.fdopen(far, closefd=True) as screen:
        monkeypatch.setattr(sys, "stdin", screen)
        yield near
    os.close(near)


def test_a_key_needs_no_enter(keyboard: Any) -> None:
    with terminal.key_presses() as wait:
        os.write(keyboard, b"q")
        assert wait(10.0) == "q"


@pytest.mark.usefixtures("keyboard")
def test_without_a_key_the_wait_ends() -> None:
    with terminal.key_presses() as wait:
        assert wait(0.01) == ""


def test_the_settings_of_the_terminal_are_restored(keyboard: Any) -> None:
    before = termios.tcgetattr(keyboard)
    with terminal.key_presses():
        assert termios.tcgetattr(keyboard) != before
    assert termios.tcgetattr(keyboard) == before


def test_without_a_terminal_no_key_is_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("q"))
    with terminal.key_presses() as wait:
        assert wait(0.01) == ""
