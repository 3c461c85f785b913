"""Runs every benchmark in turn, each a program of its own, then writes charts and tables from what they found.

One that fails does not keep the others from running; the exit code tells. With --quick the figures stay on the screen and in build/bench,
and one that fails runs once more: a regression falls through its floors twice, a busy moment of the machine does not.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import served

HERE = Path(__file__).parent
BENCHMARKS = (
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
)
LLMS = ("llm_overhead",)
"""Beside a peer, and of minutes: not among the quick ones."""

INTERRUPTED = 130
QUICK_TRIES = 2


def run(program: Path, arguments: list[str]) -> int:
    """A program's exit code. An interruption reaches it once, however often it comes, and its end is waited for."""
    with subprocess.Popen([sys.executable, program, *arguments], start_new_session=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            process.send_signal(signal.SIGINT)
            process.wait()
            return INTERRUPTED


def run_all(programs: list[Path], arguments: list[str], tries: int = 1) -> dict[str, int]:
    """The exit code of each, by name, up to the first that was interrupted. One that fails is run as often as it may be tried."""
    codes: dict[str, int] = {}
    for program in programs:
        for _ in range(tries):
            codes[program.stem] = run_told(program, arguments)
            if codes[program.stem] in (0, INTERRUPTED):
                break
        if codes[program.stem] == INTERRUPTED:
            break
    return codes


def run_told(program: Path, arguments: list[str]) -> int:
    """The same, told before and after."""
    began_s = time.monotonic()
    print(f"== {program.stem}", flush=True)
    code = run(program, arguments)
    print(
        f"== {program.stem}: exit code {code} after {time.monotonic() - began_s:.0f} s", flush=True
    )
    return code


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "benchmarks",
        nargs="*",
        help=f"of {', '.join((*BENCHMARKS, *LLMS))}; default: all, quick all but the last",
    )
    args = parser.parse_args()
    served.end_by_signals()
    named = args.benchmarks or (BENCHMARKS if args.quick else (*BENCHMARKS, *LLMS))
    programs = [path for path in (HERE / f"{name}.py" for name in named) if path.exists()]
    codes = run_all(programs, ["--quick"], QUICK_TRIES) if args.quick else run_all(programs, [])
    if INTERRUPTED in codes.values():
        return INTERRUPTED
    if not args.quick:
        codes["report"] = run(HERE / "report.py", [])
    failed = [name for name, code in codes.items() if code]
    print(f"failed: {', '.join(failed)}" if failed else "all benchmarks ended well")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
