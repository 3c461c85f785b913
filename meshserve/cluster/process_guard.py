"""Ends what a dead process leaves behind: `guard.py PID` waits until the leader of a process group has ended, and kills the rest of it.

A program of its own: the leader may be killed or stopped at any moment, and its children may be too stuck to notice.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys


def watch_over_this_process() -> subprocess.Popen[bytes]:
    """Make this process the leader of a group with a guard over it: whatever it starts, and stays in the group, ends with it."""
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )


def guard(leader_pid: int) -> None:
    """Return when the leader has ended and nobody of its group is left."""
    with contextlib.suppress(ProcessLookupError):
        leader = os.pidfd_open(leader_pid)
        select.select([leader], [], [])
        os.close(leader)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader_pid, signal.SIGKILL)


if __name__ == "__main__":
    guard(int(sys.argv[1]))
