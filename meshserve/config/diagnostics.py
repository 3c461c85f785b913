"""The faults of a configuration, in words for its author."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

Path = tuple[str | int, ...]

SHOWN_MAX = 60


class Diagnostic(NamedTuple):
    """A fault at `path`; `earlier` is the entry that it conflicts with, if any."""

    path: Path
    message: str
    earlier: Path | None = None


def field(path: Path) -> str:
    """Return a path as its author writes it: `models[2].uri`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def shown(value: object) -> str:
    """Return a value as part of a sentence, cut at 60 characters."""
    kinds = {dict: "a mapping", list: "a list", type(None): "nothing"}
    # As YAML has it: its author wrote `true`, not `True`.
    text = kinds.get(type(value)) or (
        str(value).lower() if isinstance(value, bool) else repr(value)
    )
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` with the nearest known word, or nothing if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def hint(word: str, known: Iterable[str]) -> str:
    """Return `did_you_mean`, or the list of all known words if none is near."""
    words = list(known)
    return did_you_mean(word, words) or f"; there are: {', '.join(words)}"
