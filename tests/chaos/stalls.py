"""When the whole machine stood still: a small process keeps a beat, and notes what was late.

`python -m tests.chaos.stalls FILE` appends a line "BEGIN END" for each stall, in seconds of the
machine's monotonic clock, until the process that has started it ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

BEAT_S = 0.02
STALL_S = 0.4
"""Half of what makes the mesh take a process for stopped. One that has slept is run within
milliseconds, however many others are busy: if it is so late, the machine stood still."""
FELT_S = 10.0
"""How long after a stall its failures may come: what it made the mesh kill is back by then."""

Interval = tuple[float, float]


class Stall(NamedTuple):
    """From the last beat before it to the first one after it."""

    begin_s: float
    end_s: float

    def overlaps(self, interval: Interval) -> bool:
        """Tell whether something that lasted from the one time to the other may have felt it."""
        return interval[0] <= self.end_s + FELT_S and interval[1] >= self.begin_s


def read(path: Path) -> list[Stall]:
    """Return the stalls that were noted in a file."""
    lines = path.read_text().splitlines()
    return [Stall(*(float(word) for word in line.split())) for line in lines]


@contextlib.contextmanager
def watched(path: Path) -> Iterator[None]:
    """Note stalls in a new file until the block ends."""
    path.touch()
    keeper = subprocess.Popen([sys.executable, "-m", "tests.chaos.stalls", path])
    try:
        yield
    finally:
        keeper.kill()
        keeper.wait()


def late_beats(times_s: Iterable[float]) -> Iterator[Stall]:
    """Yield a stall for each two beats, at these times, that lie too far apart."""
    return (Stall(*pair) for pair in itertools.pairwise(times_s) if pair[1] - pair[0] > STALL_S)


def beats() -> Iterator[float]:
    """Yield the time of each beat until the process that has started this one ends."""
    starter = os.getppid()
    while os.getppid() == starter:
        yield time.monotonic()
        time.sleep(BEAT_S)


def main() -> None:
    # Without a buffer: the process is killed at the end.
    with Path(sys.argv[1]).open("ab", buffering=0) as out:
        late = late_beats(beats())
        out.writelines(f"{stall.begin_s} {stall.end_s}\n".encode() for stall in late)


if __name__ == "__main__":
    main()
