"""Runs every benchmark in turn, each a program of its own, then writes charts and tables from what they found.

One that fails does not keep the others from running; the exit code tells. With --quick the tables stay where the figures are: on the screen.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = ("routing", "density", "attach", "cold", "churn", "startup", "open_loop", "eviction", "scale")
QUICK = ("routing", "density", "attach", "cold", "churn", "startup", "open_loop", "eviction", "scale")
INTERRUPTED = 130


def there(wanted: list[str]) -> list[str]:
    """Those of the wanted that this checkout has."""
    return [name for name in wanted if (HERE / f"{name}.py").exists()]


def run(name: str, arguments: list[str]) -> int:
    """One benchmark's exit code. It shares the terminal, so that Ctrl-C reaches it; this program then waits for its end."""
    with subprocess.Popen([sys.executable, HERE / f"{name}.py", *arguments]) as program:
        while True:
            try:
                return program.wait()
            except KeyboardInterrupt:
                continue


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("benchmarks", nargs="*", default=list(BENCHMARKS), help=f"of {', '.join(BENCHMARKS)}; default: all")
    args = parser.parse_args()
    codes: dict[str, int] = {}
    for name in there(args.benchmarks):
        began_s = time.monotonic()
        print(f"== {name}", flush=True)
        codes[name] = run(name, ["--quick"] if args.quick else [])
        print(f"== {name}: exit code {codes[name]} after {time.monotonic() - began_s:.0f} s", flush=True)
        if codes[name] == INTERRUPTED:
            return INTERRUPTED
    if not args.quick:
        codes["report"] = run("report", [])
    failed = [name for name, code in codes.items() if code]
    print(f"failed: {', '.join(failed)}" if failed else "all benchmarks ended well")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
