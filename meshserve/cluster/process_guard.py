"""Kill the processes that a dead process leaves behind.

Run as a program, `process_guard.py PID` waits until the leader of a process group has ended and
kills the rest of the group. It is a process of its own because the leader may be killed at any
moment, and its children may hang.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

SEGMENT = re.compile(r"/dev/shm/(?:psm_|vllm_)\S*", re.ASCII)  # noqa: S108 - where Linux has it
"""Shared memory of Python and vLLM. A name that others chose is never removed."""

TRACKER = "multiprocessing.resource_tracker"
TRACKER_S = 2.0
POLL_S = 0.02


def guard_this_process() -> subprocess.Popen[bytes]:
    """Make this process the leader of a process group, and start a guard over the group."""
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    # The guard needs only the standard library: with -I and -S it starts in milliseconds.
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )


def guard(leader_pid: int) -> None:
    """Wait until the leader has ended, then kill every process of its group.

    Shared memory that they leave is removed: by Python's resource tracker, which is therefore
    killed last, and otherwise here.
    """
    with contextlib.suppress(ProcessLookupError):
        leader = os.pidfd_open(leader_pid)
        select.select([leader], [], [])
        os.close(leader)
    pids = members(leader_pid)
    # Once they are dead, nothing shows what they had mapped.
    segments = {segment for pid in pids for segment in SEGMENT.findall(_read(pid, "maps"))}
    trackers = [pid for pid in pids if TRACKER in _read(pid, "cmdline")]
    for pid in set(pids) - set(trackers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # A tracker ends by itself when the last process has ended that it works for.
    end_s = time.monotonic() + TRACKER_S
    while set(trackers) & set(members(leader_pid)) and time.monotonic() < end_s:
        time.sleep(POLL_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader_pid, signal.SIGKILL)
    for segment in segments:
        Path(segment).unlink(missing_ok=True)


def members(group: int) -> list[int]:
    """Return the living processes of a process group, without its leader."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if pid != group and _group(pid) == group]


def _group(pid: int) -> int:
    # The name in the second field may have spaces and brackets of its own.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[2]) if fields and fields[0] != "Z" else 0


def _read(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    guard(int(sys.argv[1]))
