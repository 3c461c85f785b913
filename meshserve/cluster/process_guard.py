"""Kill the processes that a dead process leaves behind.

Run as a program, `process_guard.py PID` waits until the leader of a process group has ended and
kills the rest of the group. It is a process of its own because the leader may be killed at any
moment, and its children may hang.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys


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
    """Wait until the leader has ended, then kill every process of its group."""
    with contextlib.suppress(ProcessLookupError):
        leader = os.pidfd_open(leader_pid)
        select.select([leader], [], [])
        os.close(leader)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader_pid, signal.SIGKILL)


if __name__ == "__main__":
    guard(int(sys.argv[1]))
