"""Where things are printed: consoles that fit a terminal, and don't cut what goes into a file."""

from __future__ import annotations

import os
import sys

import httpx
from rich.console import Console

# tables in a pipe or a file are not cut to an imagined terminal
PIPE_WIDTH = 200


def out() -> Console:
    """Standard output. Markup in names and messages is not interpreted."""
    return Console(
        file=sys.stdout,
        markup=False,
        highlight=False,
        emoji=False,
        width=_width(sys.stdout.isatty()),
    )


def err() -> Console:
    """Standard error."""
    return Console(file=sys.stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_json(answer: httpx.Response) -> None:
    """The mesh's JSON, untouched."""
    sys.stdout.write(answer.text if answer.text.endswith("\n") else f"{answer.text}\n")


def _width(is_terminal: bool) -> int | None:
    return None if is_terminal or "COLUMNS" in os.environ else PIPE_WIDTH
