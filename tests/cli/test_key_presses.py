import io
import os
import pty
import sys
import termios

import pytest

from meshserve.cli import key_presses


@pytest.fixture
def keyboard(monkeypatch):
    """The far end of a terminal that is this process's standard input."""
    near, far = pty.openpty()
    with os.fdopen(far, closefd=True) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield near
    os.close(near)


def test_a_key_is_there_without_enter(keyboard):
    with key_presses.pressed() as wait:
        os.write(keyboard, b"q")
        assert wait(10.0) == "q"


@pytest.mark.usefixtures("keyboard")
def test_no_key_in_time():
    with key_presses.pressed() as wait:
        assert wait(0.01) == ""


def test_the_terminal_is_as_it_was(keyboard):
    before = termios.tcgetattr(keyboard)
    with key_presses.pressed():
        assert termios.tcgetattr(keyboard) != before
    assert termios.tcgetattr(keyboard) == before


def test_no_terminal_has_no_keys(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("q"))
    with key_presses.pressed() as wait:
        assert wait(0.01) == ""
