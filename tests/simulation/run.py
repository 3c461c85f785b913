"""Simulate seeds: `python -m tests.simulation.run FIRST [LAST]`.

One seed prints its whole trace, several print the end of each that failed. The same seed gives the
same trace in every run.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.simulation import contents, story, world

TRACE_LINES = 60
BATCH = 10
"""Seeds in one process. Nothing that a seed has left undone is cleaned up, so memory grows."""

PROCESSES = os.cpu_count() or 1

HASH_SEED = "PYTHONHASHSEED"


class _Mistakes(logging.Handler):
    """Collects the log's errors that have a traceback: they are bugs of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0]:
            text = "".join(traceback.format_exception(*record.exc_info))
            self.lines.append(f"{record.getMessage()}\n{text}")


def simulate(seed: int, folder: Path) -> tuple[world.World, str]:
    """Simulate one seed; return its world, and why it failed, or an empty text."""
    mistakes = _Mistakes()
    logging.getLogger("meshserve").addHandler(mistakes)
    folder.mkdir()
    ended = world.World(seed, folder)
    failure = ""
    with contents.known_runtime(ended.repository):
        try:
            ended.loop.run_until_complete(story.Story(ended).tell())
        except BaseException:  # noqa: BLE001 whatever it is, it is told
            failure = traceback.format_exc()
        finally:
            ended.close()
            logging.getLogger("meshserve").removeHandler(mistakes)
    return ended, failure or "".join(mistakes.lines[:1])


def simulate_batch(seeds: range, folder: Path, lines: int) -> Counter[str]:
    """Simulate seeds in this process, print what failed, and return what was simulated."""
    # Objects that a seed leaves behind are never finalized: that would run code of dead processes.
    gc.disable()
    total: Counter[str] = Counter()
    kept = []
    for seed in seeds:
        ended, failure = simulate(seed, folder / f"{os.getpid()}-{seed}")
        kept.append(ended)
        digest = hashlib.sha256("\n".join(ended.trace).encode()).hexdigest()[:16]
        total.update(ended.figures(), seeds=1, failed=bool(failure))
        total[f"digest of {seed}: {digest}"] += len(seeds) == 1
        if failure or len(seeds) == 1:
            print("\n".join(ended.trace[-lines:]))
            print(f"seed {seed} failed: {failure}" if failure else f"seed {seed} is well")
    sys.stdout.flush()
    return total


def in_other_processes(batches: list[range], folder: Path, lines: int) -> Counter[str]:
    """Simulate each batch in a process of its own, and return what was simulated."""
    pids: dict[int, range] = {}
    total: Counter[str] = Counter()
    waiting = list(reversed(batches))
    while waiting or pids:
        while waiting and len(pids) < PROCESSES:
            seeds = waiting.pop()
            sys.stdout.flush()
            pid = os.fork()
            if not pid:
                try:
                    figures = simulate_batch(seeds, folder, lines)
                    (folder / f"{seeds[0]}.json").write_text(json.dumps(figures))
                finally:
                    os._exit(0)
            pids[pid] = seeds
        ended, _ = os.wait()
        seeds = pids.pop(ended)
        result = folder / f"{seeds[0]}.json"
        if result.exists():
            total += Counter(json.loads(result.read_text()))
        else:
            print(f"the process of the seeds {seeds[0]} to {seeds[-1]} died")
            total += Counter(seeds=len(seeds), failed=len(seeds))
    return total


def main(first: int, last: int) -> int:
    """Simulate the seeds from the first to the last; return how many failed."""
    is_one = first == last
    logging.basicConfig(stream=sys.stdout, level=logging.WARNING if is_one else logging.CRITICAL)
    lines = 0 if is_one else TRACE_LINES
    began_s = time.perf_counter()
    batches = [
        range(begin, min(begin + BATCH, last + 1)) for begin in range(first, last + 1, BATCH)
    ]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        total = in_other_processes(batches, Path(folder), lines)
    print(f"{dict(sorted(total.items()))} in {time.perf_counter() - began_s:.1f} s")
    return total["failed"]


if __name__ == "__main__":
    if os.environ.get(HASH_SEED) != "0":
        # The order of sets of texts is part of what happens.
        again = [sys.executable, "-m", "tests.simulation.run", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, HASH_SEED: "0"})
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[-1]))))
