"""What a benchmark found, as a file: where, when and how it was measured, what it claims, its tables and its charts.

Every file in bench/results/ has this form, so that bench/report.py can write the README's tables without knowing any of them.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).with_name("results")
QUICK_FOLDER = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Claim:
    """One figure held against its target. `theirs` is a peer's figure for the same, `ratio` what the target speaks of if it has one."""

    what: str
    ours: float
    unit: str
    target: str
    is_reached: bool
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of words under a heading each; the first column is what the row is about. `missing` says what could not be measured, and why."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bar:
    """One bar of a chart."""

    label: str
    value: float
    is_ours: bool = False


@dataclass(frozen=True)
class Chart:
    """Bars that are compared with each other. `name` is that of its file; `is_log` where they differ by orders of magnitude."""

    name: str
    title: str
    unit: str
    bars: tuple[Bar, ...]
    is_log: bool = False


@dataclass(frozen=True)
class Found:
    """All that one benchmark found. `figures` is everything that was measured, for who wants to look closer."""

    rounds: int
    sizes: Mapping[str, object]
    claims: tuple[Claim, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    figures: Mapping[str, object] = field(default_factory=dict)


def at_most(what: str, ours: float, unit: str, bound: float) -> Claim:
    """The claim that our figure is no greater than `bound`."""
    return Claim(what, ours, unit, f"≤ {bound:,g} {unit}".rstrip(), ours <= bound)


def at_least(what: str, ours: float, unit: str, bound: float) -> Claim:
    """The claim that our figure is no smaller than `bound`."""
    return Claim(what, ours, unit, f"≥ {bound:,g} {unit}".rstrip(), ours >= bound)


def exactly(what: str, ours: float, unit: str, bound: float) -> Claim:
    """The claim that our figure is `bound`."""
    return Claim(what, ours, unit, f"{bound:,g} {unit}".rstrip(), ours == bound)


def times(what: str, unit: str, ours: float, peer: tuple[str, float], bound: float) -> Claim:
    """The claim that our figure is at least `bound` times the peer's (name, figure)."""
    ratio = ours / peer[1]
    return Claim(what, ours, unit, f"≥ {bound:g} ×", ratio >= bound, *peer, ratio)


def times_at_most(
    what: str, unit: str, ours: float, peer: tuple[str, float], bound: float
) -> Claim:
    """The claim that our figure is at most `bound` times the peer's (name, figure)."""
    ratio = ours / peer[1]
    return Claim(what, ours, unit, f"≤ {bound:g} ×", ratio <= bound, *peer, ratio)


def machine() -> dict[str, object]:
    """Where it was measured, and how busy that was before."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def command() -> str:
    """How this program was called, to be typed in the repository's root."""
    return shlex.join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def document(benchmark: str, found: Found, here: Mapping[str, object]) -> dict[str, Any]:
    """The file's content."""
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    head = {"benchmark": benchmark, "date": today, "command": command(), "machine": dict(here)}
    return {key: _plain(value) for key, value in {**head, **asdict(found)}.items()}


def _plain(value: Any) -> Any:
    """What JSON can say: not a number is nothing."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else round(float(value), 4)
    return int(value) if isinstance(value, np.integer) else value


def save(benchmark: str, found: Found, here: Mapping[str, object], folder: Path) -> Path:
    """Write the file into `folder`."""
    path = folder / f"{benchmark}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(document(benchmark, found, here), indent=1, ensure_ascii=False) + "\n"
    )
    return path


def load(path: Path) -> tuple[dict[str, Any], Found]:
    """A file's header, and what was found."""
    read = json.loads(path.read_text())
    found = Found(
        rounds=read.pop("rounds"),
        sizes=read.pop("sizes"),
        claims=tuple(Claim(**each) for each in read.pop("claims")),
        tables=tuple(_table(each) for each in read.pop("tables")),
        charts=tuple(_chart(each) for each in read.pop("charts")),
        figures=read.pop("figures"),
    )
    return read, found


def _table(read: dict[str, Any]) -> Table:
    return Table(
        read["title"], tuple(read["head"]), tuple(map(tuple, read["rows"])), read["missing"]
    )


def _chart(read: dict[str, Any]) -> Chart:
    return Chart(**{**read, "bars": tuple(Bar(**each) for each in read["bars"])})


def figure(value: float) -> str:
    """A number as a reader wants it: three digits that count."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    digits = (
        0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2 if size >= 0.1 else 3
    )
    return f"{value:,.{digits}f}"
