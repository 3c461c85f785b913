"""The user's terminal: where commands print, and single keys without Enter."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator

from rich.console import Console

PIPE_WIDTH = 200
"""Columns of a table in a pipe or a file, which has no width of its own to cut it to."""

WaitForKey = Callable[[float], str]


def out() -> Console:
    """Return a console on standard output that prints markup in names and messages as it is."""
    # A model may be called `churn[beta]`, which rich would take for markup.
    return Console(
        file=sys.stdout,
        markup=False,
        highlight=False,
        emoji=False,
        width=_width(sys.stdout.isatty()),
    )


def err() -> Console:
    """Return a console on standard error that does not break lines."""
    # Messages are copied into searches and issues, where a break in the middle is in the way.
    return Console(file=sys.stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_json(answer: object) -> None:
    """Print the mesh's JSON in one line, as the mesh sends it."""
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    sys.stdout.write(f"{text}\n")


def _width(is_terminal: bool) -> int | None:
    # Without a width rich takes that of the terminal, or what COLUMNS says.
    return None if is_terminal or "COLUMNS" in os.environ else PIPE_WIDTH


@contextlib.contextmanager
def key_presses() -> Iterator[WaitForKey]:
    """Yield a function that waits so many seconds for a key, and returns it or an empty text.

    The terminal's settings are restored afterwards. Without a terminal no key is ever pressed.
    """
    if not sys.stdin.isatty():
        yield _wait_without_keys
        return
    terminal = sys.stdin.fileno()
    settings = termios.tcgetattr(terminal)
    # Not raw mode: Ctrl-C must still end the command.
    tty.setcbreak(terminal)
    try:
        yield lambda timeout_s: _wait_for_key(terminal, timeout_s)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, settings)


def _wait_for_key(terminal: int, timeout_s: float) -> str:
    ready, _, _ = select.select([terminal], [], [], timeout_s)
    # Not through `sys.stdin`, whose buffer would hide further keys from `select`.
    return os.read(terminal, 1).decode("ascii", "replace") if ready else ""


def _wait_without_keys(timeout_s: float) -> str:
    select.select([], [], [], timeout_s)
    return ""
