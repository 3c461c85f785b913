"""Ask a mesh with the peers' clients, and write docs/compatibility.md.

    python -m compat.suite             # every case; the peers' clients are installed when needed
    python -m compat.suite --quick     # those that need no other environment; writes no page

The exit code is 1 if a case fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench import served
from compat import cases, catalogue, mesh, report


def run(chosen: Iterable[cases.Case]) -> list[cases.Outcome]:
    """Run cases against a mesh of their own, and print those that fail."""
    outcomes = []
    with (
        tempfile.TemporaryDirectory(prefix="ms-compat-") as folder,
        mesh.serving(Path(folder)) as asked,
    ):
        for outcome in cases.run(asked, chosen):
            outcomes.append(outcome)
            if outcome.failure:
                print(f"{outcome.case.title}: {outcome.failure}", flush=True)
    return outcomes


def main() -> int:
    """Run all or the quick cases; 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    served.end_by_signals()
    outcomes = run(catalogue.quick_cases() if args.quick else catalogue.all_cases())
    failed = sum(bool(outcome.failure) for outcome in outcomes)
    print(f"{len(outcomes)} ran, {len(outcomes) - failed} passed, {failed} failed")
    if not args.quick:
        report.write(outcomes)
        print(f"wrote {report.PAGE}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
