"""The limits that a model's process puts on itself before it runs the model's code."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from meshserve.logs import marked_lines

PR_SET_PDEATHSIG = 1
STANDARD_DESCRIPTORS = 3

OOM_SCORE = 500
"""Added to the process's badness (0 to 1000, proc(5)): short of memory, the kernel takes it first,
and the worker with all its other models last."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What a model's process may take.

    `data_bytes_max` bounds its private memory; beyond it allocations fail. 0 sets no bound.
    `niceness` is added to that of the worker.
    """

    data_bytes_max: int = 0
    niceness: int = 0


NO_LIMITS = ProcessLimits()


def confine(
    server_pid: int, limits: ProcessLimits, log: int, kept_descriptors: Collection[int]
) -> None:
    """Cut this process off from the one that forked it, but for its limits and its death.

    Its output goes to `log`. It ends at once if the process `server_pid` ends.
    """
    # It then leads a group, by which the fork server kills what the model has started.
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server_pid:  # it ended before the line above
        os._exit(0)
    _redirect_output(log)
    _close_others(kept_descriptors)
    faulthandler.enable()
    if limits.niceness:
        os.nice(limits.niceness)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.data_bytes_max:
        # Not RLIMIT_AS, which counts mapped files and reserved addresses as well (getrlimit(2)).
        limit = resource.RLIMIT_DATA
        resource.setrlimit(limit, (limits.data_bytes_max, limits.data_bytes_max))
    # Containers may forbid it; then the kernel chooses by size alone.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), "ascii")


def _redirect_output(log: int) -> None:
    silent = os.open(os.devnull, os.O_RDONLY)
    os.dup2(silent, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # Line by line: what a model prints is of use while it runs, and lost if it dies in a buffer.
    marked_lines.take_output(1)


def _close_others(kept: Collection[int]) -> None:
    # The others include the fork server's channel, by which a model could order processes.
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor >= STANDARD_DESCRIPTORS and descriptor not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(descriptor)
