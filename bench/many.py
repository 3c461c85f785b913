"""Register five thousand tiny models, and send random requests for a minute.

About a thousand are in memory at a time. Everything goes through a whole mesh with one worker.
Every answer is checked; one that is wrong or missing ends the program with exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench import cold_tables, program, results, thrash

WHOLE = thrash.Plan(models=5_000, memory="175MiB", seconds=60, in_flight=8)
QUICK = thrash.Plan(models=1_600, memory="160MiB", seconds=4, in_flight=4)


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    return summarise(thrash.run(console, QUICK if args.quick else WHOLE, folder))


def summarise(thrashed: thrash.Thrashed) -> results.Results:
    """Return requests by whether the model was resident, and the claim of no failure."""
    sizes = {
        "models": thrashed.models,
        "resident": thrashed.resident,
        "requests": len(thrashed.asked),
    }
    return results.Results(
        1, sizes, tuple(cold_tables.thrash_claims(thrashed)), (cold_tables.thrash_table(thrashed),)
    )


def main() -> int:
    return program.main("many", program.parser(__doc__), run)


if __name__ == "__main__":
    sys.exit(main())
