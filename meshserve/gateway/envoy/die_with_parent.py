"""Run a program that is killed when its parent dies.

    python die_with_parent.py PARENT_PID PROGRAM ARGUMENT…

This is a program of its own, because code between fork and exec is not safe in a process with
threads.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def become(parent_pid: int, command: list[str]) -> None:
    """Replace this process by `command`, killed when the parent's thread ends (prctl(2)).

    Returns only if the parent has ended already. Also raises the limit of open files to the
    allowed maximum, because each connection is an open file.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    if os.getppid() == parent_pid:
        os.execv(command[0], command)  # noqa: S606 - the purpose of this program


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
