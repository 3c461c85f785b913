"""The arguments, the end by a signal, the exit code and the file of every benchmark's program."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench import h2load, results, served
from meshserve import errors

Measure = Callable[[Console, argparse.Namespace, Path], results.Results]
WIDTH = 130


class WrongAnswer(Exception):
    """A system under measurement did not do what it was measured for."""


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return the arguments that every benchmark takes.

    Defaults that `--quick` changes are None and chosen by the benchmark.
    """
    arguments = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and generous floors; writes to build/bench, not bench/results",
    )
    arguments.add_argument(
        "--strict",
        action="store_true",
        help="exit code 1 where a target is missed; with --quick that is so anyhow",
    )
    return arguments


def main(benchmark: str, arguments: argparse.ArgumentParser, measure: Measure) -> int:
    """Measure in a temporary folder, show and save; return 0, 1 for a failure, 130 after Ctrl-C."""
    args, here, started_s = arguments.parse_args(), results.machine(), time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    served.end_by_signals()
    try:
        with tempfile.TemporaryDirectory(prefix=f"bench-{benchmark}-") as folder:
            measured = measure(console, args, Path(folder))
    except (
        served.NotServing,
        h2load.LoadFailed,
        WrongAnswer,
        AssertionError,
        errors.MeshError,
    ) as failure:
        console.print(f"{benchmark}: {failure}", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    show(console, measured)
    path = results.save(
        benchmark, measured, here, results.QUICK_FOLDER if args.quick else results.FOLDER
    )
    shown = path.relative_to(results.ROOT)
    console.print(f"{shown} after {time.monotonic() - started_s:.0f} s", highlight=False)
    return int(
        (args.strict or args.quick) and not all(claim.is_reached for claim in measured.claims)
    )


def show(console: Console, measured: results.Results) -> None:
    """Print the tables, then each figure beside its goal."""
    for table in measured.tables:
        drawn = Table(title=table.title, box=box.SIMPLE)
        for column, heading in enumerate(table.head):
            drawn.add_column(heading, justify="right" if column else "left")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
        for what, why in table.missing.items():
            console.print(f"not measured: {what}: {why}", markup=False, highlight=False)
    for claim in measured.claims:
        console.print(as_line(claim), highlight=False, markup=False)


def as_line(claim: results.Claim) -> str:
    """Return a claim as a line."""
    beside = (
        f" beside {results.figure(claim.theirs)} of {claim.peer}: {claim.ratio:.2f} ×"
        if claim.theirs and claim.ratio
        else ""
    )
    unit = f" {claim.unit}" if claim.unit else ""
    word = "reached" if claim.is_reached else "MISSED "
    figure = results.figure(claim.ours)
    return f"{word}  {claim.what}: {figure}{unit}{beside} ({claim.target})"
