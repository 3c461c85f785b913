"""Several processes' metrics as one page: every family once, every series told apart. Pure.

The format is Prometheus' text format 0.0.4. Samples are passed on as text, never parsed into
numbers: the reason is in docs/decisions/0040.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S.*)")
LABEL = re.compile(r'(?:^|,)\s*([a-zA-Z_][a-zA-Z0-9_]*)="')
WORKER_LABEL = re.compile(r'(?:^|,)\s*worker="')
# What the samples of one family have behind its name.
SUFFIXES = frozenset({"", "_bucket", "_sum", "_count", "_total", "_created", "_info"})

AddLabels = Callable[[str], str]


@dataclass(slots=True)
class MetricFamily:
    """One family: at most one line each of HELP and TYPE, and its samples."""

    comments: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def merge(
    pages: Mapping[str, str], labels: Mapping[str, Mapping[str, str]] = MappingProxyType({})
) -> str:
    """Return one page for many, given by the name of their process.

    Series of a process in `labels` get those labels that they do not have. Series of the others
    get `process="<name>"` if they have no `worker` label. Lines that are no metrics are dropped.
    """
    families: dict[str, MetricFamily] = {}
    for process, page in pages.items():
        own = labels.get(process)
        _add_page(families, page, _process_label(process) if own is None else _all_labels(own))
    return "".join(
        f"{line}\n"
        for family in families.values()
        for line in (*family.comments.values(), *family.samples)
    )


def escape(value: str) -> str:
    """Return a label's value as it is written between quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _add_page(families: dict[str, MetricFamily], page: str, add_labels: AddLabels) -> None:
    family = ""
    # Not `splitlines`, which also splits at characters that are valid in a label's value.
    for line in page.split("\n"):
        if line.startswith("#"):
            match line.split(maxsplit=3):
                case ["#", "HELP" | "TYPE" as kind, family, *_]:
                    # The format has one line of each kind for a family: the first one stays.
                    families.setdefault(family, MetricFamily()).comments.setdefault(kind, line)
        elif sample := SAMPLE.fullmatch(line.strip()):
            name, labels, value = sample.groups()
            is_in_family = family and name.removeprefix(family) in SUFFIXES
            labels = add_labels((labels or "").strip().rstrip(","))
            owner = families.setdefault(family if is_in_family else name, MetricFamily())
            owner.samples.append(f"{name}{{{labels}}} {value}")


def _process_label(process: str) -> AddLabels:
    own = f'process="{escape(process)}"'
    # A worker's series name it already.
    return lambda labels: labels if WORKER_LABEL.search(labels) else _join(labels, own)


def _all_labels(own: Mapping[str, str]) -> AddLabels:
    written = {name: f'{name}="{escape(value)}"' for name, value in own.items()}

    def add(labels: str) -> str:
        present = set(LABEL.findall(labels))
        return _join(labels, *(label for name, label in written.items() if name not in present))

    return add


def _join(*labels: str) -> str:
    return ",".join(filter(None, labels))
