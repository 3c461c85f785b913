"""Several processes' metrics as one page in Prometheus' text format: every family named once, every series told apart. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S.*)")
WORKER_LABEL = re.compile(r'(?:^|,)\s*worker="')


@dataclass(slots=True)
class Family:
    """What belongs below one name: at most one line each of help and type, and samples."""

    comments: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def merged(pages: Mapping[str, str]) -> str:
    """One page of many, by the name of the process each is from.

    A series without a `worker` label gets `process="<name>"`, so that equal ones of two processes stay two. Other lines are dropped.
    """
    families: dict[str, Family] = {}
    for process, page in pages.items():
        _gather(families, process, page.split("\n"))
    return "".join(f"{line}\n" for family in families.values() for line in (*family.comments.values(), *family.samples))


def _gather(families: dict[str, Family], process: str, lines: Iterable[str]) -> None:
    current = ""
    for line in lines:
        if line.startswith("#"):
            current = _comment(families, line) or current
        elif sample := SAMPLE.fullmatch(line.strip()):
            name, labels, value = sample.groups()
            belongs = current if _is_of(name, current) else name
            families.setdefault(belongs, Family()).samples.append(f"{name}{{{_labels(labels or '', process)}}} {value}")


def _comment(families: dict[str, Family], line: str) -> str:
    match line.split(maxsplit=3):
        case ["#", "HELP" | "TYPE" as kind, name, *_]:
            families.setdefault(name, Family()).comments.setdefault(kind, line)
            return name
    return ""


def _is_of(name: str, family: str) -> bool:
    return bool(family) and name.removeprefix(family) in {"", "_bucket", "_sum", "_count", "_total", "_created", "_info"}


def _labels(labels: str, process: str) -> str:
    labels = labels.strip().rstrip(",")
    if WORKER_LABEL.search(labels):
        return labels
    return f'{labels}{"," if labels else ""}process="{process}"'
