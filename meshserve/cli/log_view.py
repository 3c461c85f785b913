"""The lines of a mesh's logs: when they were written, and of what they tell. Pure."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshserve import errors

# Ours, Envoy's and the access log's. A time without a zone is this machine's.
STAMP = re.compile(r"\[?(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)[.,](\d{3})\d*(Z?)")
DURATION = re.compile(r"(\d+)([smhd])")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LOG_NAME_MAX = 60
"""Characters of a file's name; an LLM with a longer one has the last of them."""


# `TIME LEVEL LOGGER [MODEL VERSION REQUEST]: …`
MARKS = re.compile(r"\S+ \S+ [A-Z]+ \S+ \[(.+?)\]: ")


class LogEntry(NamedTuple):
    """One line of a log, with those that belong to it. `at_s` is Unix time, 0 if unknown."""

    at_s: float
    source: str
    text: str


def parse_time(line: str) -> float | None:
    """Return the Unix time at which a line begins, None for one that continues the one before."""
    if line.startswith("{"):
        try:
            fields = json.loads(line)
        except ValueError:
            return None
        line = str(fields.get("time", "")) if isinstance(fields, dict) else ""
    match = STAMP.match(line)
    if match is None:
        return None
    moment = dt.datetime.fromisoformat(match[1])
    if match[3]:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp() + int(match[2]) / 1000


def parse_since(text: str, now_s: float) -> float:
    """Return the Unix time of `10m` ago, or of a time such as `2026-11-28 14:30`.

    Raises ConfigInvalid.
    """
    match = DURATION.fullmatch(text)
    if match:
        return now_s - int(match[1]) * UNITS_S[match[2]]
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise errors.ConfigInvalid(
            f"--since {text}: expected a duration such as 30s, 10m, 2h or 1d, "
            "or a time such as 2026-11-28T14:30"
        ) from None


def entries(source: str, lines: Iterable[str], at_s: float = 0.0) -> Iterator[LogEntry]:
    """Yield the entries of a file's lines; `at_s` is the time of the line before them.

    What native code and engines write has no time, and counts as written with the line before.
    """
    held: list[str] = []
    for line in lines:
        stamp = parse_time(line)
        if stamp is None and line.startswith(" ") and held:
            held.append(line)
            continue
        if held:
            yield LogEntry(at_s, source, "\n".join(held))
        at_s, held = (at_s if stamp is None else stamp), [line]
    if held:
        yield LogEntry(at_s, source, "\n".join(held))


def is_log_of(stem: str, who: str) -> bool:
    """Return whether a file of this name, without its suffix, is a log of `who`.

    It names a process, a pool or an LLM, or a gateway, to which its Envoy belongs.
    """
    if stem == who or (who == "gateway" and stem in {"envoy", "access"}):
        return True
    _, _, number = stem.rpartition("-")
    return number.isdecimal() and stem == f"{who}-{number}".replace("/", "-")[-LOG_NAME_MAX:]


def tells_of(entry: LogEntry, who: str) -> bool:
    """Return whether an entry is a model's, or has its name among its words if it is nobody's."""
    model = _model_of(entry.text)
    if model:
        return model == who or model.startswith(f"{who} ")
    return re.search(rf"(?<![\w.-]){re.escape(who)}(?!\w|-\w|\.\w)", entry.text) is not None


def _model_of(text: str) -> str:
    """Return the marks of an entry, which begin with its model's name, empty without any."""
    if text.startswith("{"):
        try:
            fields = json.loads(text.partition("\n")[0])
        except ValueError:
            return ""
        return str(fields.get("model", "")) if isinstance(fields, dict) else ""
    match = MARKS.match(text)
    return match[1] if match else ""
