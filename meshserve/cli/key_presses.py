"""Single keys from a terminal, without waiting for Enter."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator

Wait = Callable[[float], str]


@contextlib.contextmanager
def pressed() -> Iterator[Wait]:
    """A function that waits for so many seconds and returns the key that was pressed meanwhile, or nothing.

    The terminal is as it was afterwards. Where standard input is no terminal, no key is ever pressed.
    """
    if not sys.stdin.isatty():
        yield _wait_only
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield lambda timeout_s: _wait(terminal, timeout_s)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _wait(terminal: int, timeout_s: float) -> str:
    ready, _, _ = select.select([terminal], [], [], timeout_s)
    return os.read(terminal, 1).decode("ascii", "replace") if ready else ""


def _wait_only(timeout_s: float) -> str:
    select.select([], [], [], timeout_s)
    return ""
