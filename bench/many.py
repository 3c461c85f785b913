"""Five thousand tiny models registered, about a thousand in memory at a time, and random requests for a minute.

Through a whole mesh with one worker. Every answer is checked; any that is wrong or missing ends the program with exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cold_tables
import program
import results
import thrash
from rich.console import Console

WHOLE = thrash.Plan(models=5_000, memory="175MiB", seconds=60, in_flight=8)
QUICK = thrash.Plan(models=1_600, memory="160MiB", seconds=4, in_flight=4)


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Found:
    return found(thrash.run(console, QUICK if args.quick else WHOLE, folder))


def found(thrashed: thrash.Thrashed) -> results.Found:
    """Requests by whether the model was there, and that none failed."""
    sizes = {
        "models": thrashed.models,
        "resident": thrashed.resident,
        "requests": len(thrashed.asked),
    }
    return results.Found(
        1, sizes, tuple(cold_tables.thrash_claims(thrashed)), (cold_tables.thrash_table(thrashed),)
    )


def main() -> int:
    return program.main("many", program.parser(__doc__), run)


if __name__ == "__main__":
    sys.exit(main())
