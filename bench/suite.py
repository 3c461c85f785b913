"""Run every benchmark in turn, each as a program of its own, then write charts and tables.

One that fails does not keep the others from running, and the exit code is 1. With --quick the
figures stay on the screen and in build/bench, and one that fails runs once more: a regression
misses its floors twice, a busy moment of the machine does not.
"""

from __future__ import annotations

import argparse
import functools
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import served

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
    "growth",
)
# Measured beside a peer and for minutes: not among the quick ones.
LLMS = ("llm_overhead",)

INTERRUPTED = 130
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUICK_TRIES = 2


def run(command: Sequence[str | Path]) -> int:
    """Run a program and return its exit code.

    An interruption reaches it once, however often it comes, and its end is awaited.
    """
    # A signal during the start would leave a program behind whose number is not known yet.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    unblock = functools.partial(signal.pthread_sigmask, signal.SIG_SETMASK, before)
    # The program must not begin with blocked signals. This one has no other thread.
    with subprocess.Popen(command, start_new_session=True, preexec_fn=unblock) as process:  # noqa: PLW1509
        try:
            unblock()
            return process.wait()
        except KeyboardInterrupt:
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)
            process.send_signal(signal.SIGINT)
            process.wait()
            return INTERRUPTED


def run_all(commands: Mapping[str, Sequence[str | Path]], tries: int = 1) -> dict[str, int]:
    """Run programs in turn and return the exit code of each, by name.

    One that fails runs again, `tries` times in all. The first that is interrupted ends the rest.
    """
    codes: dict[str, int] = {}
    for name, command in commands.items():
        for _ in range(tries):
            codes[name] = _run_and_print(name, command)
            if codes[name] in (0, INTERRUPTED):
                break
        if codes[name] == INTERRUPTED:
            break
    return codes


def _run_and_print(name: str, command: Sequence[str | Path]) -> int:
    began_s = time.monotonic()
    print(f"== {name}", flush=True)
    code = run(command)
    print(f"== {name}: exit code {code} after {time.monotonic() - began_s:.0f} s", flush=True)
    return code


def main() -> int:
    """Run the benchmarks named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "benchmarks",
        nargs="*",
        choices=(*BENCHMARKS, *LLMS, []),
        help="default: all; with --quick all but the last",
    )
    args = parser.parse_args()
    served.end_by_signals()
    names = args.benchmarks or (BENCHMARKS if args.quick else (*BENCHMARKS, *LLMS))
    options = ["--quick"] if args.quick else []
    commands = {name: served.own_program(name, *options) for name in names}
    codes = run_all(commands, QUICK_TRIES if args.quick else 1)
    if INTERRUPTED in codes.values():
        return INTERRUPTED
    if not args.quick:
        codes["report"] = run(served.own_program("report"))
    failed = [name for name, code in codes.items() if code]
    print(f"failed: {', '.join(failed)}" if failed else "all benchmarks ended well")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
