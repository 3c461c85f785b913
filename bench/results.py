"""The file of one benchmark's results: where, when and how it was measured, claims, tables, charts.

Every file in bench/results/ has this form, so that bench/report.py can write the tables of
bench/README.md without knowing the benchmarks.
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
    """One figure beside its goal.

    `theirs` is a peer's figure for the same. `ratio` is ours by theirs, for a goal of "times".
    """

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
    """Rows of words under headings; the first column names the row.

    `missing` has what could not be measured, and why.
    """

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
    """Bars to compare. `name` is its file's; `is_log` is for orders of magnitude."""

    name: str
    title: str
    unit: str
    bars: tuple[Bar, ...]
    is_log: bool = False


@dataclass(frozen=True)
class Results:
    """The results of one benchmark. `figures` has every single measurement, for a closer look."""

    rounds: int
    sizes: Mapping[str, object]
    claims: tuple[Claim, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    figures: Mapping[str, object] = field(default_factory=dict)


def at_most(what: str, ours: float, unit: str, bound: float) -> Claim:
    """Return the claim that our figure is no greater than `bound`."""
    return Claim(what, ours, unit, f"≤ {bound:,g} {unit}".rstrip(), ours <= bound)


def at_least(what: str, ours: float, unit: str, bound: float) -> Claim:
    """Return the claim that our figure is no smaller than `bound`."""
    return Claim(what, ours, unit, f"≥ {bound:,g} {unit}".rstrip(), ours >= bound)


def exactly(what: str, ours: float, unit: str, bound: float) -> Claim:
    """Return the claim that our figure is `bound`."""
    return Claim(what, ours, unit, f"{bound:,g} {unit}".rstrip(), ours == bound)


def times(what: str, unit: str, ours: float, peer: tuple[str, float], bound: float) -> Claim:
    """Return the claim that our figure is at least `bound` times the peer's (name, figure)."""
    ratio = ours / peer[1]
    return Claim(what, ours, unit, f"≥ {bound:g} ×", ratio >= bound, *peer, ratio)


def times_at_most(
    what: str, unit: str, ours: float, peer: tuple[str, float], bound: float
) -> Claim:
    """Return the claim that our figure is at most `bound` times the peer's (name, figure)."""
    ratio = ours / peer[1]
    return Claim(what, ours, unit, f"≤ {bound:g} ×", ratio <= bound, *peer, ratio)


def machine() -> dict[str, object]:
    """Describe this machine, and how busy it is."""
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
    """Return the command line of this program, for a shell in the repository's root."""
    return shlex.join(["python", "-m", f"bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def document(benchmark: str, measured: Results, here: Mapping[str, object]) -> dict[str, Any]:
    """Return the content of the file, as JSON can say it."""
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    head = {"benchmark": benchmark, "date": today, "command": command(), "machine": dict(here)}
    return {key: _plain(value) for key, value in {**head, **asdict(measured)}.items()}


def _plain(value: Any) -> Any:
    """Return the value as JSON can say it: not-a-number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else round(float(value), 4)
    return int(value) if isinstance(value, np.integer) else value


def save(benchmark: str, measured: Results, here: Mapping[str, object], folder: Path) -> Path:
    """Write the file into `folder` and return its path."""
    path = folder / f"{benchmark}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(document(benchmark, measured, here), indent=1, ensure_ascii=False) + "\n"
    )
    return path


def load(path: Path) -> tuple[dict[str, Any], Results]:
    """Return a file's header, and its results."""
    read = json.loads(path.read_text())
    measured = Results(
        rounds=read.pop("rounds"),
        sizes=read.pop("sizes"),
        claims=tuple(Claim(**claim) for claim in read.pop("claims")),
        tables=tuple(_table(table) for table in read.pop("tables")),
        charts=tuple(_chart(chart) for chart in read.pop("charts")),
        figures=read.pop("figures"),
    )
    return read, measured


def _table(read: dict[str, Any]) -> Table:
    return Table(
        read["title"], tuple(read["head"]), tuple(map(tuple, read["rows"])), read["missing"]
    )


def _chart(read: dict[str, Any]) -> Chart:
    return Chart(**{**read, "bars": tuple(Bar(**bar) for bar in read["bars"])})


def figure(value: float) -> str:
    """Return a number with three significant digits, for a reader."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    digits = (
        0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2 if size >= 0.1 else 3
    )
    return f"{value:,.{digits}f}"
