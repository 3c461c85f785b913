"""Writes what bench/results/ holds: a chart file for each chart beside the results, and the tables between two marks into the README.

With --check it only says whether that has been done.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import charts
import results

README = results.ROOT / "README.md"
BEGIN, END = "<!-- bench: written by `make bench` from bench/results -->", "<!-- end -->"
ORDER = (
    "routing",
    "density",
    "attach",
    "cold",
    "many",
    "hot",
    "churn",
    "startup",
    "open_loop",
    "eviction",
    "scale",
    "llm_overhead",
)
NOTHING = "Nothing was measured yet: `make bench`."
CLAIMS_HEAD = ("what", "measured", "target", "", "beside", "its figure", "ratio")


def paths(folder: Path) -> list[Path]:
    """The results that there are, in the order in which a reader wants them."""
    rank = {name: place for place, name in enumerate(ORDER)}
    return sorted(
        folder.glob("*.json"), key=lambda path: (rank.get(path.stem, len(ORDER)), path.stem)
    )


def sections(folder: Path) -> Iterator[str]:
    """One for each benchmark."""
    for path in paths(folder):
        head, found = results.load(path)
        yield "\n\n".join(_section(path, head, found))


def _section(path: Path, head: Mapping[str, Any], found: results.Found) -> Iterator[str]:
    yield f"### {path.stem.replace('_', ' ').capitalize()}"
    yield _origin(head, found)
    if found.claims:
        yield markdown(CLAIMS_HEAD, [_claim(each) for each in found.claims])
    for chart in found.charts:
        place = (path.parent / f"{chart.name}.svg").relative_to(results.ROOT).as_posix()
        yield f"![{chart.title}]({place})"
    yield from _tables(found)


def _origin(head: Mapping[str, Any], found: results.Found) -> str:
    here = head["machine"]
    machine = (
        f"{here['cores']} cores of {here['cpu']}, {here['memory_gib']} GiB, Python {here['python']}"
    )
    rounds = "one round" if found.rounds == 1 else f"medians of {found.rounds} rounds"
    return f"{head['date']}, {machine}; `{head['command']}`, {rounds}."


def _claim(claim: results.Claim) -> tuple[str, ...]:
    measured = f"{results.figure(claim.ours)} {claim.unit}".strip()
    theirs = "" if claim.theirs is None else f"{results.figure(claim.theirs)} {claim.unit}".strip()
    ratio = "" if claim.ratio is None else f"{claim.ratio:.2f} ×"
    return (
        claim.what,
        measured,
        claim.target,
        "reached" if claim.is_reached else "**missed**",
        claim.peer,
        theirs,
        ratio,
    )


def _tables(found: results.Found) -> Iterator[str]:
    if not found.tables:
        return
    yield "<details><summary>All figures</summary>"
    for table in found.tables:
        yield f"**{table.title}**"
        yield markdown(table.head, table.rows)
        if table.missing:
            yield (
                "Not measured: "
                + "; ".join(f"{what} ({why})" for what, why in table.missing.items())
                + "."
            )
    yield "</details>"


def markdown(
    head: tuple[str, ...], rows: list[tuple[str, ...]] | tuple[tuple[str, ...], ...]
) -> str:
    """A table; the first column is text, the others are figures."""
    lines = (head, ("---", *["---:"] * (len(head) - 1)), *rows)
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def with_results(text: str, folder: Path) -> str:
    """The README with the results of this folder."""
    written = "\n\n".join(sections(folder)) or NOTHING
    return re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _: f"{BEGIN}\n{written}\n{END}",
        text,
        flags=re.DOTALL,
    )


def drawn(folder: Path) -> dict[Path, str]:
    """Every chart's file and its text."""
    found = (results.load(path)[1] for path in paths(folder))
    return {
        folder / f"{chart.name}.svg": charts.svg(chart) for each in found for chart in each.charts
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    files = {README: with_results(README.read_text(), results.FOLDER), **drawn(results.FOLDER)}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if not args.check:
        for path in stale:
            path.write_text(files[path])
        print(
            "\n".join(f"wrote {path.relative_to(results.ROOT)}" for path in stale)
            or "everything is up to date"
        )
    return int(args.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
