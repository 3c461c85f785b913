"""Several processes' metrics as one page in Prometheus' text format: every family named once, every series told apart. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S.*)")
LABEL = re.compile(r'(?:^|,)\s*([a-zA-Z_][a-zA-Z0-9_]*)="')
WORKER_LABEL = re.compile(r'(?:^|,)\s*worker="')


@dataclass(slots=True)
class MetricFamily:
    """What belongs below one name: at most one line each of help and type, and samples."""

    comments: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def merged(
    pages: Mapping[str, str], labels: Mapping[str, Mapping[str, str]] = MappingProxyType({})
) -> str:
    """One page of many, by the name of the process each is from.

    Every series of a process in `labels` gets those labels, but for what it has itself. Of the others, a series without a `worker` label
    gets `process="<name>"`. So equal series of two processes stay two. Other lines are dropped.
    """
    families: dict[str, MetricFamily] = {}
    for process, page in pages.items():
        _gather(
            families,
            _of_all(labels[process]) if process in labels else _unless_a_workers(process),
            page.split("\n"),
        )
    return "".join(
        f"{line}\n"
        for family in families.values()
        for line in (*family.comments.values(), *family.samples)
    )


def escaped(value: str) -> str:
    """A label's value as it is written between quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _gather(
    families: dict[str, MetricFamily], labelled: Callable[[str], str], lines: Iterable[str]
) -> None:
    current = ""
    for line in lines:
        if line.startswith("#"):
            current = _comment(families, line) or current
        elif sample := SAMPLE.fullmatch(line.strip()):
            name, labels, value = sample.groups()
            belongs = current if _is_of(name, current) else name
            families.setdefault(belongs, MetricFamily()).samples.append(
                f"{name}{{{labelled((labels or '').strip().rstrip(','))}}} {value}"
            )


def _comment(families: dict[str, MetricFamily], line: str) -> str:
    match line.split(maxsplit=3):
        case ["#", "HELP" | "TYPE" as kind, name, *_]:
            families.setdefault(name, MetricFamily()).comments.setdefault(kind, line)
            return name
    return ""


def _is_of(name: str, family: str) -> bool:
    return bool(family) and name.removeprefix(family) in {
        "",
        "_bucket",
        "_sum",
        "_count",
        "_total",
        "_created",
        "_info",
    }


def _unless_a_workers(process: str) -> Callable[[str], str]:
    own = f'process="{escaped(process)}"'
    return lambda labels: labels if WORKER_LABEL.search(labels) else _joined(labels, own)


def _of_all(own: Mapping[str, str]) -> Callable[[str], str]:
    written = {name: f'{name}="{escaped(value)}"' for name, value in own.items()}

    def labelled(labels: str) -> str:
        present = set(LABEL.findall(labels))
        return _joined(labels, *(label for name, label in written.items() if name not in present))

    return labelled


def _joined(*labels: str) -> str:
    return ",".join(filter(None, labels))
