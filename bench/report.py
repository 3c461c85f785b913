"""Write what bench/results/ holds: a chart file for each chart, and the tables of bench/README.md.

With --check only say, by the exit code, whether that has been done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import charts, results
from tools import marked_text

PAGE = results.ROOT / "bench" / "README.md"
RESULTS = marked_text.begin("results", "make report")
GOALS = marked_text.begin("goals", "make report")
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
    "growth",
    "llm_overhead",
)
NOTHING = "Nothing was measured yet: `make bench`."
RESULTS_HEAD = ("what", "measured", "beside", "its figure", "ratio")
GOALS_HEAD = ("benchmark", "what", "measured", "goal", "")


def paths(folder: Path) -> list[Path]:
    """Return the files of results in the order in which a reader wants them."""
    rank = {name: place for place, name in enumerate(ORDER)}
    return sorted(
        folder.glob("*.json"), key=lambda path: (rank.get(path.stem, len(ORDER)), path.stem)
    )


def sections(folder: Path) -> Iterator[str]:
    """Yield one section for each benchmark."""
    for path in paths(folder):
        head, measured = results.load(path)
        yield "\n\n".join(_section(path, head, measured))


def _section(path: Path, head: Mapping[str, Any], measured: results.Results) -> Iterator[str]:
    yield f"### {title(path.stem)}"
    yield _origin(head, measured)
    if measured.claims:
        yield markdown(RESULTS_HEAD, map(_result, measured.claims))
    for chart in measured.charts:
        yield f"![{chart.title}]({path.parent.name}/{chart.name}.svg)"
    yield from _tables(measured)


def title(benchmark: str) -> str:
    """Return a benchmark's name as a heading has it."""
    return benchmark.replace("_", " ").capitalize().replace("Llm", "LLM")


def _origin(head: Mapping[str, Any], measured: results.Results) -> str:
    here = head["machine"]
    machine = (
        f"{here['cores']} cores of {here['cpu']}, {here['memory_gib']} GiB, Python {here['python']}"
    )
    rounds = "one round" if measured.rounds == 1 else f"medians of {measured.rounds} rounds"
    return f"{head['date']}, {machine}; `{head['command']}`, {rounds}."


def _result(claim: results.Claim) -> tuple[str, ...]:
    theirs = "" if claim.theirs is None else _figure(claim.theirs, claim.unit)
    ratio = "" if claim.ratio is None else f"{claim.ratio:.2f} ×"
    return (claim.what, _figure(claim.ours, claim.unit), claim.peer, theirs, ratio)


def _figure(value: float, unit: str) -> str:
    return f"{results.figure(value)} {unit}".strip()


def goals(folder: Path) -> str:
    """Return one table of every goal, reached or missed."""
    rows = [
        (title(path.stem), claim.what, *_goal(claim))
        for path in paths(folder)
        for claim in results.load(path)[1].claims
    ]
    return markdown(GOALS_HEAD, rows) if rows else NOTHING


def _goal(claim: results.Claim) -> tuple[str, str, str]:
    measured = _figure(claim.ours, claim.unit)
    if claim.ratio is not None:
        measured = f"{claim.ratio:.2f} × {claim.peer}"
    return measured, claim.target, "reached" if claim.is_reached else "**missed**"


def _tables(measured: results.Results) -> Iterator[str]:
    if not measured.tables:
        return
    yield "<details><summary>All figures</summary>"
    for table in measured.tables:
        yield f"**{table.title}**"
        yield markdown(table.head, table.rows)
        if table.missing:
            reasons = "; ".join(f"{what} ({why})" for what, why in table.missing.items())
            yield f"Not measured: {reasons}."
    yield "</details>"


def markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table; the first column is text, the others are figures."""
    lines = (head, ("---", *["---:"] * (len(head) - 1)), *rows)
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def with_results(text: str, folder: Path) -> str:
    """Return the page with the results and the goals of this folder.

    Raises ValueError if the page lacks one of the marks.
    """
    written = "\n\n".join(sections(folder)) or NOTHING
    return marked_text.replace(marked_text.replace(text, RESULTS, written), GOALS, goals(folder))


def drawn(folder: Path) -> dict[Path, str]:
    """Return every chart's file and its text."""
    return {
        folder / f"{chart.name}.svg": charts.svg(chart)
        for path in paths(folder)
        for chart in results.load(path)[1].charts
    }


def main() -> int:
    """Write the page and the charts, or with --check return 1 if one of them is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    files = {PAGE: with_results(PAGE.read_text(), results.FOLDER), **drawn(results.FOLDER)}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if not args.check:
        for path in stale:
            path.write_text(files[path])
        names = [f"wrote {path.relative_to(results.ROOT)}" for path in stale]
        print("\n".join(names) or "everything is up to date")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
