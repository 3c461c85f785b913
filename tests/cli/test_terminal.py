import io

import httpx
import pytest

from meshserve.cli import terminal


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    return lambda value: monkeypatch.setenv("COLUMNS", value)


@pytest.mark.usefixtures("columns")
def test_a_pipe_is_wide(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert terminal.out().width == terminal.PIPE_WIDTH


def test_a_width_that_the_user_gives_holds(monkeypatch, columns):
    columns("77")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert terminal.out().width == 77


def test_a_terminal_is_as_wide_as_it_is(monkeypatch, columns):
    columns("66")
    monkeypatch.setattr("sys.stdout", Screen())
    assert terminal.out().width == 66


def test_names_are_not_taken_for_markup(capsys):
    terminal.out().print("[red]x[/red] :smile:")
    terminal.err().print("[b]")
    assert capsys.readouterr() == ("[red]x[/red] :smile:\n", "[b]\n")


@pytest.mark.parametrize("text", ['{"b":1,  "a":2}', '{"b":1,  "a":2}\n'])
def test_json_is_untouched(capsys, text):
    terminal.print_json(httpx.Response(200, text=text))
    assert capsys.readouterr().out == '{"b":1,  "a":2}\n'
