"""What is left of a mesh whose process or Ray was killed: processes, and folders of its own.

Run as a program, `leftovers.py PID RUN_DIR FOLDER…` waits until the process PID has ended, and then
removes what it left. It is a process of its own because that one may be killed at any moment, and
imports nothing but the standard library, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

END_S = 10.0
"""How long processes may take to end after SIGKILL: the kernel frees their memory first."""

POLL_S = 0.02


def begin_guard(run_dir: Path, *folders: Path) -> subprocess.Popen[bytes]:
    """Start a process that removes what this one leaves when it ends, however it ends."""
    command = [
        sys.executable,
        "-I",
        "-S",
        __file__,
        str(os.getpid()),
        *map(str, (run_dir, *folders)),
    ]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )


def end_guard(guard: subprocess.Popen[bytes]) -> None:
    """End a guard that has nothing to do any more."""
    guard.kill()
    guard.wait()


def remove(run_dir: Path, *folders: Path) -> None:
    """Kill the processes whose arguments name a file in `run_dir`; remove it and the folders.

    These are Ray's own: the GCS, the raylet, agents that outlive it, and Envoy with its keeper. The
    raylet's end is that of our actors.
    """
    end_s = time.monotonic() + END_S
    while (pids := _users(run_dir)) and time.monotonic() < end_s:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    for folder in (run_dir, *folders):
        shutil.rmtree(folder, ignore_errors=True)


def _users(run_dir: Path) -> list[int]:
    """Return the living processes with a path below `run_dir` in their arguments."""
    name = f"{run_dir}/".encode()
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if pid != os.getpid() and name in _arguments(pid)]


def _arguments(pid: int) -> bytes:
    # Empty for a process that has ended and waits for its parent, and for other users' processes.
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def main(pid: int, run_dir: Path, *folders: Path) -> None:
    """Wait for the end of the process, then remove what it left."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        select.select([process], [], [])
        os.close(process)
    remove(run_dir, *folders)


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(Path, sys.argv[2:]))
