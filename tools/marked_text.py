"""Documents of which a program writes a part: what stands between two marks."""

from __future__ import annotations

import re

END = "<!-- end -->"


def begin(name: str, command: str) -> str:
    """Return the mark at which the part called `name` begins; `command` writes it."""
    return f"<!-- {name}: written by `{command}` -->"


def replace(text: str, begin_mark: str, written: str) -> str:
    """Return the document with `written` between the mark and the next end.

    Raises ValueError if the document does not have the mark exactly once, or no end after it.
    """
    pattern = re.compile(f"{re.escape(begin_mark)}.*?{re.escape(END)}", re.DOTALL)
    replaced, count = pattern.subn(lambda _: f"{begin_mark}\n{written.strip()}\n{END}", text)
    if count != 1:
        raise ValueError(f"{begin_mark} stands {count} times before {END}, not once")
    return replaced
