"""Run chaos against a mesh of its own: `python -m tests.chaos --minutes 2 --only poison`."""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos import catalog, report, run


def main() -> int:
    """Run, print the verdict, and return 1 if anything is wrong."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--minutes", type=float, default=2.0)
    arguments.add_argument("--per-s", type=float, default=100.0, help="requests a second")
    arguments.add_argument("--only", action="append", default=[], choices=sorted(catalog.FAULTS))
    arguments.add_argument("--keep", type=Path, help="a folder for the mesh's logs")
    args = arguments.parse_args()
    order = run.Order(args.seed, args.minutes * 60, args.per_s, tuple(args.only))
    # The mesh must end with this program, however that ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="ch-", dir="/tmp") as folder:
        verdict = run.perform(order, Path(folder))
        if args.keep:
            shutil.copytree(Path(folder, "home", "logs"), args.keep, dirs_exist_ok=True)
    sys.stdout.write(report.text(verdict) + "\n")
    return int(bool(verdict.faults()))


if __name__ == "__main__":
    sys.exit(main())
